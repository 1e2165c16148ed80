"""The JSON-lines log and the picture of the curves."""

import errno
import json

from mg.training.metric import DIFFUSION_LOSS, FLOW_LOSS, PSNR
from mg.training.run.curves import save_curves
from mg.training.run.reports import closing_report, validation_line
from mg.training.run.run_log import RunLog, read_log, write_log


def test_a_log_drops_the_steps_that_are_run_again(tmp_path):
    path = tmp_path / "log.jsonl"
    log = RunLog(path)
    for step in range(4):
        log.write({"step": step, "loss": float(step)})
    log.close()
    log = RunLog(path, first_step=2)
    log.write({"step": 2, "loss": 20.0})
    log.close()
    assert [entry["loss"] for entry in read_log(path)] == [0.0, 1.0, 20.0]
    assert len(path.read_text().splitlines()) == 3


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    entries = [{"step": step, "loss": 0.1 * step} for step in range(3)]
    write_log(path, entries)
    path.write_bytes(path.read_bytes()[:-20])
    assert read_log(path) == entries[:2]
    assert caplog.messages == [f"{path}: left out damaged lines: 3."]
    RunLog(path, first_step=5).close()
    assert read_log(path) == entries[:2] and len(caplog.messages) == 2
    assert read_log(tmp_path / "none.jsonl") == []


def test_any_flipped_bit_costs_its_line_alone_and_is_told(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    entries = [
        {"step": 0, "psnr_per_clip": {"a": 1.0, "ü": 2.5e-7}},
        {"step": 1, "loss": float("inf"), "is_applied": True},
    ]
    write_log(path, entries)
    content = path.read_bytes()
    line_of_byte = [content[:place].count(b"\n") for place in range(len(content))]
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        caplog.clear()
        lost = line_of_byte[bit // 8]
        assert read_log(path) == entries[:lost] + entries[lost + 1 :], f"bit {bit}"
        assert f": left out damaged lines: {lost + 1}" in caplog.text


def test_a_log_without_checksums_is_read_as_far_as_it_is_of_use(tmp_path, caplog):
    """As older versions wrote it."""
    path = tmp_path / "log.jsonl"
    whole = {"step": 0, "loss": 1.0}
    lines = [json.dumps(whole), '{"step": 1, "lost": 2.0}', "[1]", "[" * 100_000, '{"step": "2"}']
    path.write_text("\n".join(lines))
    assert read_log(path, ("loss",)) == [whole]
    assert "left out damaged lines: 2, 3, 4, 5." in caplog.text
    path.write_text("{\n" * 20)
    assert read_log(path) == []
    assert "left out damaged lines: 1, 2, 3, 4, 5, 6, 7, 8 and 12 more." in caplog.text


def test_what_a_full_disk_keeps_out_of_the_log_is_written_later(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        real, log._file = log._file, FullDisk(log._file, free=[20, 0, 10**6])
        for step in range(3):
            log.write({"step": step, "loss": 1.5})
        real.close()
    assert [entry["step"] for entry in read_log(path)] == [0, 1, 2]
    assert caplog.messages == [f"{path} cannot be written at the moment: [Errno 28] full"]


class FullDisk:
    """A file that takes so many bytes in each call, and raises where that is 0."""

    def __init__(self, file, free):
        self.file, self.free = file, free

    def write(self, content):
        free = self.free.pop(0)
        if free == 0:
            raise OSError(errno.ENOSPC, "full")
        return self.file.write(content[:free])

    def close(self):
        self.file.close()


def test_many_held_out_clips_are_neither_all_listed_nor_all_drawn(tmp_path):
    values = {f"clip_{number:02}.mp4": 20.0 + number for number in range(40)}
    validation = [{"step": step, "psnr": 39.5, "psnr_per_clip": values} for step in (0, 4)]
    few, many = ({**validation[0], "psnr_per_clip": dict(list(values.items())[:n])} for n in (8, 9))
    assert "clip_07.mp4: 27.00" in validation_line(few, PSNR)
    assert "more" not in validation_line(few, PSNR)
    assert validation_line(many, PSNR).endswith("and 1 more, in validation.jsonl)")
    report = closing_report([], validation, PSNR, first_line="Done.", last_lines=[])
    assert report.count("clip_") == 8 and "and 32 more, in validation.jsonl" in report
    save_curves(tmp_path / "curves.png", [], validation, PSNR)
    assert (tmp_path / "curves.png").stat().st_size < 50_000


def test_parts_by_time_or_step_say_so():
    entry = {"flow_loss": 0.2, "flow_loss_at_t": {"0.18": 0.3, "0.29": 0.1}}
    line = validation_line(entry, FLOW_LOSS)
    assert line == "flow loss 0.2000 (t = 0.18: 0.3000, t = 0.29: 0.1000)"
    report = closing_report([], [entry, entry], FLOW_LOSS, first_line="", last_lines=[])
    assert "  t = 0.18: 0.3000 -> 0.3000" in report
    entry = {"diffusion_loss": 0.2, "diffusion_loss_at_step": {"500": 0.2}}
    assert "(step 500: 0.2000)" in validation_line(entry, DIFFUSION_LOSS)
