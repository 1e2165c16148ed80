"""The training loop: batches in, updates, guards, checkpoints, validation, final weights."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mg.cli import save_config
from mg.data.loader import ClipLoader
from mg.parallel.ranks import Ranks
from mg.progress import counting_seconds
from mg.training.run.bad_steps import BadSteps
from mg.training.run.checkpoint import Progress
from mg.training.run.disk import warning_if_disk_is_full
from mg.training.run.guards import LossScale, StepGuard, Verdict
from mg.training.run.pace import Pace
from mg.training.run.rank_agreement import check_same_data, check_same_step
from mg.training.run.reports import (
    closing_report,
    count_of_steps,
    one_line,
    results,
    stop_report,
    validation_line,
)
from mg.training.run.run_history import RunHistory
from mg.training.run.run_lock import hold_folder
from mg.training.run.run_log import RunLog
from mg.training.run.run_state import RunState
from mg.training.run.signals import StopRequest
from mg.training.run.trackers import Trackers
from mg.training.run.updates import Updates
from mg.training.settings import RunSettings
from mg.training.stages import stage_at
from mg.training.task import Task

__all__ = ["Trainer"]

logger = logging.getLogger("mg")


class Trainer:
    """One training run; `run()` does all of it.

    Args:
        config: settings of the run.
        task: what is trained.
        ranks: this process among those that train together.
        validation_interval: steps between validations.
        sample_interval: steps between samples to look at; None for none.

    Raises:
        ValueError, FileNotFoundError: there is no checkpoint to resume, or it does not fit.
    """

    def __init__(
        self,
        config: RunSettings,
        task: Task,
        ranks: Ranks,
        *,
        validation_interval: int,
        sample_interval: int | None = None,
    ) -> None:
        self.config = config
        self.task = task
        self.ranks = ranks
        self.validation_interval = validation_interval
        self.sample_interval = sample_interval
        self.output = Path(config.output_path)
        self.guard = StepGuard(config.guards)
        is_fp16 = config.dtype == "float16"
        self.loss_scale = LossScale(config.loss_scale if is_fp16 else 1.0, is_fp16)
        self.bad_steps = BadSteps(self.output / "bad_steps.jsonl", ranks)
        self.updates = Updates(config, task, self.guard, self.loss_scale, self.bad_steps)
        self.state = RunState(self.output / "checkpoints", config, task, ranks)
        self.step = 0
        self.pace = Pace()
        self._has_validated = False
        self.batch_offset = 0
        if ranks.size > 1:
            check_same_data(ranks, self.state.settings, task.trained_on())
        if config.resume and self._has_checkpoint():
            self._take(self.state.resume())
            logger.info("Resuming after step %d.", self.step)
        else:
            self.stage = task.stages[0]
            task.initialise()
            task.enter(self.stage)
        self.best_score = -math.inf
        self.history = RunHistory(self.output, task.metric)
        if config.resume and ranks.is_main:
            self.history.load_validations(self.step)
            scores = map(task.metric.score, self.history.validations)
            self.best_score = max(scores, default=-math.inf)

    def _has_checkpoint(self) -> bool:
        """Return whether there is a checkpoint; a run killed before its first one has none."""
        if self.state.store.steps() or not (self.output / "config.yaml").is_file():
            return True  # or let the loading say that there is nothing to resume
        logger.warning("%s has no checkpoint yet: starting from the beginning.", self.output)
        return False

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> Path | None:
        """Train, validate and save; return the path of the final weights.

        A signal to end (SIGTERM, Ctrl-C) ends the run after the step at hand, with a checkpoint;
        then, and on ranks other than 0, the answer is None.

        Raises:
            ValueError: another run is at work in the folder.
            FloatingPointError: updates went wrong again and again.
            OSError: the last checkpoint or the final weights could not be written; what was saved
                before is intact.
        """
        with self._folder_for_itself():
            if not self._run_to_the_end():
                return None
            final = self.task.export(self.output)
            if not self.ranks.is_main:
                return None
            self._say_what_there_is(final)
            return final

    def _folder_for_itself(self) -> contextlib.AbstractContextManager:
        """Return a context in which no other run works in the folder; rank 0 sees to that."""
        # Once all have come here they have looked at the folder, which rank 0 now changes.
        check_same_step(self.ranks, self.step)
        if not self.ranks.is_main:
            return contextlib.nullcontext()
        self.output.mkdir(parents=True, exist_ok=True)
        return hold_folder(self.output)

    def _run_to_the_end(self) -> bool:
        """Train, validate and save; return False if a signal ended that."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(logging_redirect_tqdm([logging.root]))
            self.stop = stack.enter_context(StopRequest())
            self.trackers = stack.enter_context(self._trackers())
            self._begin()
            self._train()
            if self.ranks.any(self._is_asked_to_stop()):
                self.save()
                logger.info("Stopped after step %d; go on with --resume=true.", self.step)
                return False
            if self.step < self.config.steps:
                minutes = self.config.max_minutes
                logger.info("max_minutes=%g is over; ending after step %d.", minutes, self.step)
            self.save(score=self.validate())
            if self.sample_interval is not None:
                self.sample()
        return True

    def _begin(self) -> None:
        if self.ranks.is_main:
            if not self.config.resume:
                self.state.store.remove_all()
                self.bad_steps.forget()
            save_config(self.output / "config.yaml", self.config)
        if self.step == 0:  # so that there always is a checkpoint to go back to
            score = self.validate()
            self._follow_plateau(score)
            self.save(score=score)

    def _train(self) -> None:
        self.deadline = time.monotonic() + 60 * (self.config.max_minutes or 1e9)
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=None if self.ranks.is_main else True,
        )
        with bar, self._log() as self.log:
            while self.step < self.config.steps and not self._must_end():
                # Again after each return to a checkpoint: the batches are others then.
                with self._loader() as loader:
                    self._train_until_restore(loader, bar)

    def _log(self) -> contextlib.AbstractContextManager:
        if not self.ranks.is_main:
            return contextlib.nullcontext()
        return RunLog(self.history.log_path, first_step=self.step)

    def _trackers(self) -> Trackers:
        names = self.config.tracker_names if self.ranks.is_main else []
        return Trackers(names, self.output, dataclasses.asdict(self.config))

    def _loader(self) -> ClipLoader:
        accumulation = self.config.optim.accumulation_steps
        return ClipLoader(
            self.task.dataset,
            self.config.batch_size,
            start_step=(self.step + self.batch_offset) * accumulation,
            num_steps=(self.config.steps - self.step) * accumulation,
            num_workers=self.task.config.data.num_workers,
            decode_seconds_limit=self.config.guards.decode_seconds,
        )

    def _train_until_restore(self, loader: ClipLoader, bar: tqdm) -> None:
        """Do steps until the run ends or goes back to a checkpoint."""
        while self.step < self.config.steps and not self._must_end():
            self._enter_stage()
            with self._told_while_compiling(bar):
                verdict, entry = self.updates.run(loader, self.step, self.step + self.batch_offset)
            if self.log is not None:
                self.log.write(entry)
                self.trackers.scalars(entry, entry["step"])
            bar.set_postfix_str(one_line(entry, self.task.terms))
            self.pace.note(entry["seconds"])
            self.step += 1
            bar.update(self.step - bar.n)
            if self.step % self.config.log_interval == 0:
                logger.info(
                    "step %d: %s%s", self.step, one_line(entry, self.task.terms), self._left()
                )
            if verdict is Verdict.STOP:
                raise FloatingPointError(stop_report(self.step, self.guard, self.bad_steps.path))
            if verdict is Verdict.RESTORE:
                self._restore()
                return
            if self.step < self.config.steps:
                self._at_intervals()

    @contextlib.contextmanager
    def _told_while_compiling(self, bar: tqdm) -> Iterator[None]:
        """Count the seconds of a step that compiles its graph."""
        if not self.pace.compiles_next or self.config.mode != "graph":
            yield
            return
        with self.stop.finishing("the compilation, which can take minutes, and one step"):
            if not self.ranks.is_main:
                yield
                return
            logger.info("Compiling the training step, which can take minutes ...")
            with counting_seconds("compiling", bar):
                yield

    def _enter_stage(self) -> None:
        """Build the next stage's steps when the present stage is over, and hand on their state."""
        stage = stage_at(self.task.stages, self.step)
        if stage is self.stage:
            return
        self.pace.enter_stage()
        states = {name: step.state() for name, step in self.task.steps.items()}
        self.task.enter(stage)
        self.stage = stage
        for name, step in self.task.steps.items():
            step.load_state(states.get(name, {}))

    def _left(self) -> str:
        """Return how long the steps to come take, for a line of the log."""
        seconds = max(self.deadline - time.monotonic(), 0)
        return self.pace.left(self.config.steps - self.step, at_most=seconds)

    def _must_end(self) -> bool:
        is_late = time.monotonic() > self.deadline
        return self.ranks.any(is_late or self._is_asked_to_stop())

    def _at_intervals(self) -> None:
        score = None
        if self.step % self.validation_interval == 0:
            with warning_if_disk_is_full(self.step, "the validation"):
                score = self.validate()
            self._follow_plateau(score)
        is_best = self.ranks.any(score is not None and score > self.best_score)
        is_due = self.step % self.config.checkpoint_interval == 0
        if (is_due or is_best) and self.guard.is_content:
            with warning_if_disk_is_full(self.step, "the checkpoint"):
                self.save(score=score)
        if self.sample_interval is not None and self.step % self.sample_interval == 0:
            self.sample()

    def _follow_plateau(self, score: float | None) -> None:
        """Lower the learning rate if the validations stopped getting better; on all ranks."""
        plateau = self.task.plateau
        if plateau is None:
            return
        score = self.ranks.gather_json(score)[0]  # rank 0 validates
        if score is not None and plateau.update(-score):
            logger.info("No better by now: the learning rate falls to x %g.", plateau.multiplier)

    # -- state -----------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Go back to the last good checkpoint, and on with batches that come after these."""
        next_batch = self.step + self.batch_offset
        guard = self.guard
        kept = guard.num_skipped, guard.disc_num_skipped, guard.num_restores
        progress = self.state.restore()
        self._take(progress)
        guard.num_skipped, guard.disc_num_skipped, guard.num_restores = kept
        self.batch_offset = next_batch - self.step
        self.history.forget_validations(self.step + 1)
        if self.log is not None:
            self.log.forget(self.step)
        logger.warning(
            "Back to the checkpoint of step %d (return %d of at most %d); the clips of the bad "
            "steps are listed in %s.",
            self.step,
            guard.num_restores,
            self.config.guards.max_restores,
            self.bad_steps.path,
        )

    def progress(self) -> Progress:
        """Return where the run stands."""
        return Progress(
            step=self.step,
            batch_offset=self.batch_offset,
            stage=self.task.stages.index(self.stage),
            loss_scale=self.loss_scale.value,
            num_good_steps=self.loss_scale.num_good_steps,
            num_skipped=self.guard.num_skipped,
            num_bad_in_row=self.guard.num_bad_in_row,
            num_restores=self.guard.num_restores,
            disc_num_skipped=self.guard.disc_num_skipped,
            disc_num_bad_in_row=self.guard.disc_num_bad_in_row,
            running_means=dict(self.task.running_means),
            bad_clips=dict(self.task.dataset.bad),
            plateau=self.task.plateau.state() if self.task.plateau is not None else {},
        )

    def _take(self, progress: Progress) -> None:
        """Stand where a loaded checkpoint stands."""
        self.step = progress.step
        self.stage = stage_at(self.task.stages, self.step)
        self.batch_offset = progress.batch_offset
        if self.loss_scale.is_dynamic:
            self.loss_scale.value = progress.loss_scale
            self.loss_scale.num_good_steps = progress.num_good_steps
        self.guard.num_skipped = progress.num_skipped
        self.guard.num_bad_in_row = progress.num_bad_in_row
        self.guard.num_restores = progress.num_restores
        self.guard.disc_num_skipped = progress.disc_num_skipped
        self.guard.disc_num_bad_in_row = progress.disc_num_bad_in_row
        self.task.running_means.update(progress.running_means)
        self.task.dataset.take_bad(progress.bad_clips)
        if self.task.plateau is not None and progress.plateau:
            self.task.plateau.load_state(progress.plateau)

    def save(self, *, score: float | None = None) -> None:
        """Write a checkpoint of the present step; that of the best score is kept for good.

        All ranks must call it; rank 0 writes.
        """
        for bad in self.ranks.gather_json(self.task.dataset.bad):
            self.task.dataset.take_bad(bad)  # each rank has met others
        path = self.state.save(self.progress(), score=score)
        if score is not None:
            self.best_score = max(self.best_score, score)
        if path is not None:
            logger.info("Saved %s.", path)

    def validate(self) -> float | None:
        """Return the score of what is held out (higher is better), logged and drawn.

        None where there are none, on ranks other than 0, and when the run is asked to end.
        """
        video_path = self._validation_video
        with self._told_while_validating():
            measured = self.task.validate(video_path, should_stop=self._is_asked_to_stop)
        if measured is None:
            return None
        entry = {"step": self.step, **measured}
        self.history.add_validation(entry, self.task.terms)
        self.trackers.scalars(entry, self.step, prefix="validation/")
        self.trackers.file("validation/curves", self.history.curves_path, self.step)
        self.trackers.file("validation/video", video_path, self.step)
        metric = self.task.metric
        logger.info("Step %d: held-out %s", self.step, validation_line(entry, metric))
        return metric.score(entry)

    @contextlib.contextmanager
    def _told_while_validating(self) -> Iterator[None]:
        """Count the seconds of the first validation, which compiles its graphs."""
        is_first, self._has_validated = not self._has_validated, True
        with self.stop.finishing("the validation"):
            is_told = is_first and self.task.has_validation and self.ranks.is_main
            if not is_told or self.config.mode != "graph":
                yield
                return
            logger.info("Compiling the validation, which can take minutes ...")
            with counting_seconds("compiling and validating"):
                yield

    @property
    def _validation_video(self) -> Path:
        return self.output / "validation" / f"step_{self.step:08d}.mp4"

    def sample(self) -> None:
        """Have rank 0 write what the averaged weights generate; all ranks must call it."""
        path = self.output / "samples" / f"step_{self.step:08d}"
        with warning_if_disk_is_full(self.step, "the sample"):
            written = self.task.sample(path, should_stop=self._is_asked_to_stop)
            if written is not None:
                logger.info("Sample: %s", written)
                self.trackers.file("sample", written, self.step)
        self.ranks.barrier()  # which waits for as long as it takes; a collective does not

    def _is_asked_to_stop(self) -> bool:
        return self.stop.requested is not None

    def _say_what_there_is(self, final: Path) -> None:
        """Log what the run leaves behind, and its numbers."""
        bad = self.task.dataset.bad
        if bad:
            logger.warning(
                "%d clips could not be read:\n%s", len(bad), self.task.dataset.bad_table()
            )
        is_validated = bool(self.history.validations)
        report = closing_report(
            self.history.steps(),
            self.history.validations,
            self.task.metric,
            first_line=count_of_steps(self.step, self.guard),
            last_lines=results(
                weights=final,
                next_command=self.task.next_command(final),
                curves=self.history.curves_path if is_validated else None,
                video=self._validation_video if is_validated else None,
            ),
        )
        logger.info("%s", report)
