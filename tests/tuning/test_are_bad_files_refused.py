import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tierform
from tierform.cli.main import main
from tierform.errors import TierformError
from tierform.tuning.feeding import ShuffledBatches, error_on
from tierform.tuning.tables import read_series, read_stations, series_samples, synthetic

MODEL = """
import torch
from torch import nn
class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_linear, self.v_linear = nn.Linear(8, 8), nn.Linear(8, 8)
    def forward(self, x):
        return x + torch.tanh(self.q_linear(x)) * self.v_linear(x)
def build():
    return nn.Sequential(nn.Linear(4, 8), Layer(), nn.Linear(8, 1))
def batches():
    def batch(step):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return x, x.sum(1, keepdim=True)
    return batch, lambda model: {"mse": 0.5}
def loss(model, batch):
    return ((model(batch[0]) - batch[1]) ** 2).mean()
"""
CONFIG = """
model: my.py:build
data: {module: "my.py:batches"}
loss: my.py:loss
steps: 30
rule: {kind: fixed, step: 10, window: 5, trial: true}
low_rank: {rank: 2}
checkpoint_every: 10
output: out
"""


def code_of(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_a_run_from_a_file_writes_everything_and_goes_on(tmp_path, capsys):
    (tmp_path / "my.py").write_text(MODEL)
    (tmp_path / "c.yaml").write_text(CONFIG)
    assert code_of(["tune", str(tmp_path / "c.yaml"), "--json", str(tmp_path / "s.json")]) == 0
    summary = json.loads((tmp_path / "s.json").read_text())
    first = summary["switch_step"]
    assert summary["steps"] == 30 and summary["test"] == {"mse": 0.5}
    names = {one.name for one in (tmp_path / "out").iterdir()}
    assert names == {"run.tft", "log.csv", "log.json", "summary.json", "model.safetensors", "loss.svg", ".lock"}
    assert len((tmp_path / "out/log.csv").read_text().splitlines()) == 31
    assert "polyline" in (tmp_path / "out/loss.svg").read_text()
    (tmp_path / "c.yaml").write_text(CONFIG.replace("steps: 30", "steps: 40"))
    assert code_of(["tune", str(tmp_path / "c.yaml"), "--json", str(tmp_path / "s.json")]) == 0
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["steps"] == 40 and (first is None or summary["switch_step"] == first)
    (tmp_path / "c.yaml").write_text(CONFIG.replace("rank: 2", "rank: 3"))
    assert code_of(["tune", str(tmp_path / "c.yaml")]) == 2
    assert "another setting" in capsys.readouterr().err


def test_every_mistake_of_a_file_is_told_at_once(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "model: wind\nstepz: 3\nsteps: 0\ndata: {synthetic: 4, series: a.csv}\nrule: {kind: htp}\noutput: o\n"
    )
    assert code_of(["tune", str(path)]) == 2
    told = capsys.readouterr().err
    for words in ("bad.yaml:2", "did you mean 'steps'", "bad.yaml:3", "exactly one of", "did you mean 'hpt'"):
        assert words in told
    path.write_text("model: wnid\nsteps: 9\ndata: {series: a.csv, test_rows: [1, 2]}\noutput: o\n")
    assert code_of(["tune", str(path)]) == 2
    told = capsys.readouterr().err
    assert "did you mean 'wind'" in told and "no such file" in told
    path.write_text(f"model: wind\nsteps: 9\ndata: {{series: {'a' * 5000}.csv, test_rows: [1, 2]}}\noutput: o\n")
    assert code_of(["tune", str(path)]) == 2 and "no such file" in capsys.readouterr().err
    path.write_text("model: wind\nsteps: 9\ndata: {synthetic: 4}\nrule: {kind: hpt, window: 10}\noutput: o\n")
    assert code_of(["tune", str(path)]) == 2 and "longer than the run" in capsys.readouterr().err
    path.write_text("model: wind\nsteps: 9\ndata: {synthetic: 4}\nrule: {kind: hpt, patience: 10}\noutput: o\n")
    assert code_of(["tune", str(path)]) == 2 and "has no patience" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_series_with_and_without_head_and_dates(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    (tmp_path / "b.csv").write_text("date,x,y\n2016-07-01 00:00:00,1,2\n2016-07-01 01:00:00,3,4\n")
    assert read_series(tmp_path / "a.csv").tolist() == read_series(tmp_path / "b.csv").tolist() == [[1, 2], [3, 4]]
    (tmp_path / "c.csv").write_text("1,2\n3,\n5,nan\n7\n")
    with pytest.raises(TierformError) as caught:
        read_series(tmp_path / "c.csv", 3)
    told = [(one.line, one.what[:7]) for one in caught.value.problems]
    assert told == [(1, "3 colum"), (2, "a value"), (3, "a value"), (4, "the row")]
    with pytest.raises(TierformError, match="empty"):
        (tmp_path / "d.csv").write_text("\n")
        read_series(tmp_path / "d.csv")


@given(st.integers(20, 60), st.integers(1, 6), st.integers(1, 3), st.integers(5, 10), st.integers(8, 15))
def test_no_test_row_is_ever_learnt_from(rows, history, horizon, first, length):
    series = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    last = min(first + length, rows - 1)
    if last - first <= history + horizon:
        return
    try:
        split = series_samples(series, history, slice(first, last), horizon)
    except TierformError as error:
        assert "lies wholly outside" in str(error)
        return
    back = series[np.r_[0:first, last:rows]]
    mean, scale = back.mean(), back.std()
    for part, inside in ((split.train, False), (split.test, True)):
        inputs = np.rint((part.inputs * scale + mean)[:, 0, :] / 2)
        targets = np.rint((part.targets * scale + mean)[:, 0] / 2)
        assert (
            ((inputs >= first) & (inputs < last)).all() if inside else not ((inputs >= first) & (inputs < last)).any()
        )
        assert (targets - inputs[:, -1] == horizon).all()
        assert ((targets >= first) & (targets < last)).all() == inside


def test_station_tables(tmp_path):
    model = tierform.load_model("hpt-weather")
    names = [f"f{i}" for i in range(model.input_size)]
    lines = ["# exported", ",".join(["date", "station", *names, "target"])]
    for day in range(4):
        values = ",".join(["1.5"] * len(names))
        lines += [f"20{18 + day}-01-01,s{one:02d},{values},{one}" for one in range(model.fixed_tokens)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    split = read_stations(path, model, test_times=["2018", "2020"])
    assert split.train.inputs.shape == (2, 29, 13) and split.test.targets.shape == (2, 29)
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(TierformError, match="no row for this station"):
        read_stations(path, model, test_times=["2018"])
    with pytest.raises(TierformError) as caught:
        read_stations(path, model, target="swee", station="statoin", test_times=["2018"])
    assert {one.key for one in caught.value.problems} >= {"swee", "statoin"}
    with pytest.raises(TierformError, match="13 inputs of each station"):
        read_stations(path, model, features=["f0", "f1"], test_times=["2018"])


@pytest.mark.parametrize("name", ["swe", "weather", "covid", "wind"])
def test_made_up_samples_fit_their_model_and_can_be_learnt(name):
    model = tierform.load_model(f"hpt-{name}")
    split = synthetic(model, 64, 16, seed=1)
    assert split.train.inputs.shape == (64, model.fixed_tokens, model.input_size)
    assert split.train.targets.shape == (64, model.decoder_widths[-1])
    again = synthetic(model, 64, 16, seed=1)
    assert np.array_equal(split.test.targets, again.test.targets)
    x, y = split.train.inputs.reshape(64, -1), split.train.targets
    coefficients = np.linalg.lstsq(x[:, ::7], y, rcond=1e-2)[0]
    assert ((x[:, ::7] @ coefficients - y) ** 2).mean() < 0.9 * y.var()


def test_batches_depend_on_the_step_alone():
    split = synthetic(tierform.load_model("hpt-wind"), 10, 8)
    one, other = ShuffledBatches(split.train, 3, 5), ShuffledBatches(split.train, 3, 5)
    first = [one(step)[1] for step in range(9)]
    assert all((other(step)[1] == first[step]).all() for step in (8, 0, 4))
    with pytest.raises(TierformError, match="batch"):
        ShuffledBatches(split.train, 11)
    import torch

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return self.zero.expand(len(x), 57)

    found = error_on(Mean(), split.test, size=3)
    assert found["mse"] == pytest.approx(float((split.test.targets**2).mean()), rel=1e-5)
    assert found["rmse"] == pytest.approx(split.test.scale * found["mse"] ** 0.5)
