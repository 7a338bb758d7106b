"""Checkpoints: what damage is found, what a full disk or a killed write leaves behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Regression

from selenite.errors import CheckpointError, NonFiniteError, StorageError
from selenite.train import manifest
from selenite.train.checkpoint import CheckpointStore
from selenite.train.step import train_step


def _store_with(tmp_path: Path, steps: int, keep_last: int = 2, width: int = 16) -> CheckpointStore:
    task = Regression(width=width)
    store = CheckpointStore(tmp_path / "checkpoints", keep_last)
    for step in range(steps):
        train_step(task, step)
        store.save(step + 1, task, {"step": step + 1})
    return store


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "state.json"])
@pytest.mark.parametrize(
    ("damage", "complaint"),
    [(_truncate, "bytes instead of"), (_flip_a_bit, "SHA-256"), (Path.unlink, "is missing")],
)
def test_damage_names_the_file_and_the_good_checkpoint(
    tmp_path: Path, name: str, damage: Callable[[Path], None], complaint: str
) -> None:
    store = _store_with(tmp_path, 3)
    newest, older = store.paths()
    damage(newest / name)
    with pytest.raises(CheckpointError) as caught:
        store.load(newest, Regression(seed=7))
    message = str(caught.value)
    assert str(newest / name) in message
    assert complaint in message
    assert f"train.resume={older}" in message
    task = Regression(seed=7)
    assert store.load(older, task) == {"step": 2}


@pytest.mark.parametrize("damage", [Path.unlink, _truncate])
def test_damaged_manifest_and_no_good_checkpoint(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = _store_with(tmp_path, 1)
    manifest_path = store.paths()[0] / manifest.MANIFEST
    text = manifest_path.read_text()
    manifest_path.write_text(text[: len(text) // 2])
    if damage is Path.unlink:
        manifest_path.unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json is .*no other good checkpoint"):
        store.verify(manifest_path.parent)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("sealed")
    source, final = directory / "source", directory / "final"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(data.draw(st.binary(min_size=1, max_size=40)))
    manifest.seal(source, final)
    assert manifest.faults(final) == []
    target = final / data.draw(st.sampled_from(["a", "b"]))
    content = bytearray(target.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    target.write_bytes(content)
    (fault,) = manifest.faults(final)
    assert str(target) in fault


def test_another_model_is_refused_by_name_and_nothing_changes(tmp_path: Path) -> None:
    store = _store_with(tmp_path, 1, width=16)
    task = Regression(width=8)
    before = [p.detach().clone() for p in task.net.parameters()]
    with pytest.raises(CheckpointError, match=r"width is 16, 8"):
        store.load(store.paths()[0], task)
    assert all(map(torch.equal, before, task.net.parameters()))


def test_settings_of_the_optimizer_are_the_configs_and_its_state_the_checkpoints(
    tmp_path: Path,
) -> None:
    store = _store_with(tmp_path, 2)
    task = Regression(seed=7)
    (group,) = task.phases[0].optimizer.param_groups
    group["base_lr"], group["weight_decay"], group["betas"] = 0.5, 0.25, (0.5, 0.75)
    store.load(store.paths()[0], task)
    (group,) = task.phases[0].optimizer.param_groups
    assert (group["base_lr"], group["weight_decay"], group["betas"]) == (0.5, 0.25, (0.5, 0.75))
    state = task.phases[0].optimizer.state[task.net[0].weight]
    assert float(state["step"]) == 2
    assert state["exp_avg"].abs().max() > 0


def test_weights_that_overflowed_in_the_update_are_not_saved(tmp_path: Path) -> None:
    store = _store_with(tmp_path, 1)
    task = Regression()
    with torch.no_grad():
        task.net[3].weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"step 2 .*net\.3\.weight.*step_00000001"):
        store.save(2, task, {})
    assert [path.name for path in store.directory.iterdir()] == ["step_00000001"]


def test_a_mistyped_path_is_not_called_damaged(tmp_path: Path) -> None:
    store = _store_with(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"no such directory.*: step_00000001"):
        store.load(store.directory / "step_0000001", Regression())


def test_keeps_the_last_and_removes_leftovers(tmp_path: Path) -> None:
    store = _store_with(tmp_path, 5, keep_last=2)
    assert [p.name for p in store.paths()] == ["step_00000005", "step_00000004"]
    leftover = store.directory / f"{manifest.TEMPORARY}step_00000006"
    shutil.copytree(store.paths()[0], leftover)
    again = CheckpointStore(store.directory)
    assert not leftover.exists()
    assert again.latest() == store.directory / "step_00000005"


_FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from toys import Regression
from selenite.errors import StorageError
from selenite.train.checkpoint import CheckpointStore
from selenite.train.step import train_step

small, big = Regression(width=16), Regression(width=40_000)
for task in (small, big):
    train_step(task, 0)
directory = Path(sys.argv[1])
store = CheckpointStore(directory)
store.save(1, small, {})
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    store.save(2, big, {})
except StorageError as error:
    print(error)
else:
    raise SystemExit("the disk was not full")
assert store.latest() == directory / "step_00000001"
store.load(store.latest(), Regression(seed=7, width=16))
assert sorted(p.name for p in directory.iterdir()) == ["step_00000001"], list(directory.iterdir())
"""


def _run_python(code: str, *arguments: str, wrap: tuple[str, ...] = ()) -> str:
    command = [*wrap, sys.executable, "-c", code, *arguments]
    tests = Path(__file__).parent
    environment = {"PYTHONPATH": f"{tests}:{tests.parents[1]}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_file_size_limit_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    message = _run_python(_FILL_THE_DISK, str(tmp_path), "limit")
    assert "cannot be written (File too large" in message
    assert "Earlier checkpoints are intact" in message


def test_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=1500k none {tmp_path} && exec "$@"'
    wrap = ("unshare", "--user", "--mount", "--map-root-user", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*wrap, "true"], check=False).returncode:
        pytest.skip("mounting a small disk needs user namespaces: try as root")
    message = _run_python(_FILL_THE_DISK, str(tmp_path), "mounted", wrap=wrap)
    assert "No space left on device" in message


def test_unwritable_directory_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match=r"file/checkpoints.*cannot be written"):
        CheckpointStore(tmp_path / "file" / "checkpoints")
