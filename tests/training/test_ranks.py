"""Validation over two real processes (gloo): exact sums, one decision."""

from pathlib import Path

import pytest
import torch
from easytorch.device import set_device_type

from ealinformer.training.host import host_config, quiet_host
from ealinformer.training.launcher import Job
from ealinformer.training.runner import ForecastingRunner


def build_for_validation(job: Job) -> ForecastingRunner:
    """A runner as it is after its first training epoch would be, without the training."""
    config = host_config(job.run, job.entry, data_dir=job.data_dir, folder=job.folder, gpus=None)
    runner = ForecastingRunner(config, job.run)
    runner._init_train()
    return runner


def validate_twice(runner: ForecastingRunner) -> dict[str, object]:
    """Two validations of unchanged weights: the second is no better, so patience 1 has to stop."""
    runner._init_validation()
    scores = []
    for epoch in (1, 2):
        runner.reset_meters()
        runner.validate(train_epoch=epoch)
        scores.append({name: runner.meter_pool.get_value(f"val/{name}") for name in ("loss", *runner.metrics)})
    return {"scores": scores, "stop": runner.should_training_stop, "best_epoch": runner.best_epoch}


def work(rank: int, world_size: int, store: str, job: Job, results: str) -> None:
    """One rank: its model is built before the group is, so that nothing but validation is distributed."""
    torch.set_num_threads(1)
    set_device_type("cpu")  # the host's default in a new process is the GPU
    quiet_host()
    runner = build_for_validation(job)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        seen = validate_twice(runner)
        if rank == 0:  # as at the end of training, when the other ranks are gone
            seen["test"] = runner.evaluate("test").sums.as_dict()
        torch.save(seen, f"{results}-{rank}")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("settings", [("patience=1",), ("patience=1", "select_by='MAE'")])
def test_two_ranks_see_the_scores_of_one_and_stop_together(new_job, tmp_path: Path, settings):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    runner = build_for_validation(new_job(folders[0], *settings))
    alone = validate_twice(runner)
    assert alone["stop"] is True

    job = new_job(folders[1], *settings)
    arguments = (2, str(tmp_path / "store"), job, str(tmp_path / "result"))
    torch.multiprocessing.spawn(work, args=arguments, nprocs=2)
    of_ranks = [torch.load(f"{tmp_path}/result-{rank}", weights_only=True) for rank in (0, 1)]
    assert of_ranks[0].pop("test") == runner.evaluate("test").sums.as_dict()
    assert of_ranks[0] == of_ranks[1]
    assert (of_ranks[0]["stop"], of_ranks[0]["best_epoch"]) == (True, 1)
    for seen, expected in zip(of_ranks[0]["scores"], alone["scores"], strict=True):
        assert seen == pytest.approx(expected, rel=1e-6)
    # Rank 0 alone writes.
    assert sorted(p.name for p in folders[1].iterdir()) == ["best.pt", "tensorboard"]
