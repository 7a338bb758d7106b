"""Log messages and metric sinks: what is said once, and resuming without a step twice."""

from __future__ import annotations

import io
import json
import logging
import resource
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from selenite import log
from selenite.errors import MissingExtraError, StorageError
from selenite.log import JsonLines, TensorBoard, once


@pytest.fixture
def restored_logging():
    root, ours = logging.getLogger(), logging.getLogger("selenite")
    before = (root.handlers[:], root.level, ours.level)
    logging.captureWarnings(False)  # an earlier test may have left it on under a hook now gone
    yield
    root.handlers[:], root.level, ours.level = before
    logging.captureWarnings(False)


PLUGIN = (
    "tensorboard.backend.event_processing.plugin_event_accumulator"  # the dashboard reads by it
)


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("restored_logging")
def test_messages_reach_the_console_once_and_third_parties_are_quiet() -> None:
    page = io.StringIO()
    for _ in range(2):  # a second set-up replaces the first
        log.set_up(console=Console(file=page, width=200))
    logging.getLogger("selenite.train").info("bf16 compute")
    logging.getLogger("selenite.train").debug("too fine")
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("somebody.else").warning("trouble")
    warnings.warn("old call", stacklevel=1)
    said = page.getvalue()
    assert said.count("bf16 compute") == 1
    assert "trouble" in said
    assert "old call" in said
    assert "too fine" not in said
    assert "chatter" not in said


def test_once(caplog: pytest.LogCaptureFixture) -> None:
    logger, other = logging.getLogger("selenite.a"), logging.getLogger("selenite.b")
    with caplog.at_level(logging.INFO, logger="selenite"):
        for _ in range(3):
            once(logger, "slow path: no compiler")
        once(other, "slow path: no compiler")
        once(logger, "another")
    assert [r.getMessage() for r in caplog.records] == [
        "slow path: no compiler",
        "slow path: no compiler",
        "another",
    ]


def test_json_lines_are_on_disk_after_each_write(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    sink = JsonLines(path)
    sink.write(1, {"loss": 2.5, "tokens": 7, "sample": "é\n"})
    sink.write(2, {"loss": float("nan")})
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert lines == [
        {"step": 1, "loss": 2.5, "tokens": 7, "sample": "é\n"},
        {"step": 2, "loss": None},
    ]
    sink.close()


def test_resumed_json_lines_hold_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonLines(path)
    for step in range(1, 8):
        first.write(step, {"loss": step})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 8, "lo')  # killed in the middle of a line
    resumed = JsonLines(path, resumed_step=5)
    resumed.write(6, {"loss": 60})
    resumed.close()
    assert steps(path) == [1, 2, 3, 4, 5, 6]
    assert json.loads(path.read_text().splitlines()[-1])["loss"] == 60

    JsonLines(path).close()  # a new run in the same place starts empty
    assert steps(path) == []


def test_line_separators_in_a_sample_do_not_end_a_line(tmp_path: Path) -> None:
    """JSON leaves them as they are; a model writes what it likes."""
    path = tmp_path / "metrics.jsonl"
    sink = JsonLines(path)
    for step in (1, 2, 3):
        sink.write(step, {"sample": "a\u2028b\u0085c\u2029"})
    sink.close()
    JsonLines(path, resumed_step=2).close()
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["sample"] == "a\u2028b\u0085c\u2029"


def test_json_lines_resume_where_nothing_was_written(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "metrics.jsonl", resumed_step=3)
    sink.write(4, {"loss": 1.0})
    assert steps(tmp_path / "metrics.jsonl") == [4]
    sink.close()


def test_foreign_files_and_places_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n[]\n')
    with pytest.raises(StorageError, match="line 2: not a record"):
        JsonLines(path, resumed_step=1)
    assert path.read_text() == '{"step": 1}\n[]\n'  # untouched
    with pytest.raises(StorageError, match="metrics cannot be read"):
        JsonLines(tmp_path, resumed_step=1)
    for sink in (JsonLines, TensorBoard):
        with pytest.raises(StorageError, match="cannot be written"):
            sink(path / "below a file")


def test_a_full_disk_is_a_storage_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    sink = JsonLines.__new__(JsonLines)
    sink.path = Path("/dev/full")
    sink._file = sink.path.open("a")
    with pytest.raises(StorageError, match="No space left"):
        sink.write(1, {"loss": 1.0})


def write_until_refused(sink: TensorBoard, text: str) -> None:
    for step in range(1000):
        sink.write(step, {"sample": text})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the writer's
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_refusing_disk_is_a_storage_error_of_tensorboard(tmp_path: Path, size: int) -> None:
    pytest.importorskip("tensorboard")
    sink = TensorBoard(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        # The thread may be behind: the refusal comes with this write or one of the next.
        with pytest.raises(StorageError, match="metrics cannot be written"):
            write_until_refused(sink, "x" * size)
        with pytest.raises(StorageError, match="metrics cannot be written"):
            sink.write(1000, {"loss": 1.0})
        sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(PLUGIN)
    first = TensorBoard(tmp_path)
    for step in range(1, 6):
        first.write(step, {"train.loss": 1 / step, "sample": "def f"})
    first.close()
    resumed = TensorBoard(tmp_path, resumed_step=3)
    resumed.write(4, {"train.loss": 9.0})
    resumed.close()

    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    read = [(e.step, e.tensor_proto.float_val[0]) for e in events.Tensors("train.loss")]
    assert read == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 9.0)]  # float32 on disk
    assert events.Tensors("sample")[0].tensor_proto.string_val[0] == b"def f"


def test_a_missing_tensorboard_names_the_extra(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(MissingExtraError, match=r"selenite\[train\]"):
        TensorBoard(tmp_path)
