"""What became of each of many files."""

import dataclasses
import itertools

from mg.parallel.ranks import Ranks

__all__ = ["Outcome"]


@dataclasses.dataclass
class Outcome:
    """Names of the files that were worked on, that were finished before, and that failed (why)."""

    done: list[str] = dataclasses.field(default_factory=list)
    finished_before: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def summary(self, verb: str) -> str:
        """Return the counts in one line, and one more line for each file that failed."""
        lines = [
            f"{len(self.done)} {verb}, {len(self.finished_before)} finished before, "
            f"{len(self.failed)} left out"
        ]
        lines += [f"  {name}: {reason}" for name, reason in self.failed.items()]
        return "\n".join(lines)

    def of_all(self, ranks: Ranks) -> "Outcome":
        """Return the outcomes of all ranks as one; all ranks must call it."""
        parts = ranks.gather_json(dataclasses.asdict(self))
        whole = Outcome()
        for part in parts:
            whole.failed |= part["failed"]
        for name in ("done", "finished_before"):  # without repeating files of which each has a part
            files = itertools.chain.from_iterable(part[name] for part in parts)
            setattr(whole, name, list(dict.fromkeys(files)))
        return whole

    def refuse_total_failure(self) -> None:
        """Raise ValueError if there were files and not one of them came out well."""
        if self.failed and not self.done and not self.finished_before:
            reasons = "\n".join(f"  {name}: {reason}" for name, reason in self.failed.items())
            raise ValueError(f"not one of {len(self.failed)} files could be used:\n{reasons}")
