"""Small files made here in the layouts of the public tables; no file of theirs is copied."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tierform
from tierform.errors import TierformError
from tierform.tuning.config import load_config
from tierform.tuning.records import read_records
from tierform.tuning.run import load_split
from tierform.tuning.tables import read_stations

SNOTEL = """#--------- WARNING ---------
# Data are subject to revision.
#
# SNOTEL 403: Some Meadow, MT
#
Date,Snow Water Equivalent (in) Start of Day Values,Air Temperature Maximum (degF),Air Temperature Average (degF)
2017-10-01,{a},50.2,41.0
2017-10-02,{a},,40.5
2017-10-03,{b},44.0,39.9
2018-10-01,{b},44.0,30.0
2018-10-02,{b},43.0,29.0
"""


def shape(tokens, inputs):
    return dataclasses.replace(tierform.load_model("hpt-swe"), fixed_tokens=tokens, input_size=inputs)


def snotel(tmp_path):
    for name, a, b in (("403", 0.0, 1.5), ("727", 0.2, 2.5)):
        (tmp_path / f"{name}.csv").write_text(SNOTEL.format(a=a, b=b))
    (tmp_path / "README.md").write_text("not a table")
    return tmp_path


def test_a_folder_of_snotel_reports(tmp_path):
    folder = snotel(tmp_path)
    records = read_records(folder, ["Snow Water Equivalent", "Air Temperature Maximum"], time="Date", gaps=())
    assert records.stations == ("403", "727") and records.times[0] == "2017-10-01"
    assert records.values.shape == (5, 2, 2) and records.values[2, :, 0].tolist() == [1.5, 2.5]
    assert np.argwhere(np.isnan(records.values)).tolist() == [[1, 0, 1], [1, 1, 1]]
    options = {
        "time": "Date",
        "target": "Snow Water Equivalent",
        "test_times": ["2018"],
        "features": ["Air Temperature Maximum", "Air Temperature Average"],
    }
    with pytest.raises(TierformError, match="missing or not a finite number"):
        read_stations(folder, shape(2, 2), **options)
    dropped = read_stations(folder, shape(2, 2), gaps="drop", **options)
    assert len(dropped.train) == 2 and len(dropped.test) == 2
    carried = read_stations(folder, shape(2, 2), gaps="carry", **options)
    assert len(carried.train) == 3
    assert carried.train.inputs[1, :, 0].tolist() == carried.train.inputs[0, :, 0].tolist()  # 50.2 carried
    with pytest.raises(TierformError, match="several columns") as caught:
        (tmp_path / "403.csv").write_text("Date,Depth (in),Depth (cm)\n2017-10-01,1,2\n")
        read_records(folder, ["Depth"], time="Date")
    assert caught.value.problems[0].line == 1


def test_county_counts_in_a_long_table(tmp_path):
    lines = ["date,county,state,fips,cases,deaths"]
    counts = {"06037": [1, 3, 6, 10, 15, 21], "36061": [0, 0, 2, 2, 5, 9], "53061": [1, 1, 1, 1, 1, 1]}
    for day in range(6):
        for fips, cases in counts.items():
            if (fips, day) != ("53061", 0):
                lines.append(f"2020-01-2{day},Some County,State,{fips},{cases[day]},{'' if day < 2 else 0}")
    path = tmp_path / "us-counties.csv"
    path.write_text("\n".join(lines) + "\n")
    options = {
        "station": "fips",
        "target": "cases",
        "history": 2,
        "test_times": ["2020-01-25", "2020-01-24", "2020-01-23"],
    }
    with pytest.raises(TierformError, match="needs 2 stations"):
        read_stations(path, shape(2, 2), **options)
    split = read_stations(path, shape(2, 2), only=["36061", "06037"], **options)
    assert split.train.targets.shape == (1, 2)  # day 2 from days 0 and 1
    back = split.train.inputs[0] * split.train.scale
    assert (back[1, 1] - back[1, 0]) == pytest.approx(2, rel=1e-5)  # 06037: 1, 3
    chosen = read_stations(path, shape(2, 2), choose=True, gaps="drop", **options)
    assert np.array_equal(np.sort(chosen.train.targets), np.sort(split.train.targets))
    with pytest.raises(TierformError, match="no such station") as caught:
        read_stations(path, shape(2, 2), only=["36061", "6037"], **options)
    assert caught.value.problems[0].nearest == "06037"
    change = read_stations(path, shape(2, 1), only=["36061", "06037"], **(options | {"history": 1}), difference=True)
    steps = (change.test.targets - change.test.inputs[:, :, 0]) * change.test.scale
    assert steps[:, 1] == pytest.approx([1, 1], rel=1e-4)  # 06037 grows by 4, 5, 6
    with pytest.raises(TierformError, match="no row for this station"):
        read_stations(path, shape(3, 2), **options)


def test_county_counts_with_the_dates_in_the_header(tmp_path):
    path = tmp_path / "time_series.csv"
    path.write_text(
        "UID,FIPS,Combined_Key,Population,1/22/20,1/23/20,12/1/20,2/1/20\n"
        '84006037,6037.0,"Los Angeles, California, US",10,0,1,9,3\n'
        '84036061,36061.0,"New York, New York, US",20,2,2,8,4\n'
    )
    records = read_records(path, station="Combined_Key")
    assert records.times == ("2020-01-22", "2020-01-23", "2020-02-01", "2020-12-01")
    assert records.stations[0] == "Los Angeles, California, US" and records.columns == ("value",)
    assert records.values[:, :, 0].tolist() == [[0, 2], [1, 2], [3, 4], [9, 8]]
    split = read_stations(
        path, shape(2, 1), station="Combined_Key", target="value", history=1, test_times=["2020-02", "2020-12"]
    )
    assert len(split.train) == 1 and len(split.test) == 1
    with pytest.raises(TierformError, match="no such column"):
        read_records(path, station="Combined_Kay")


def test_weather_exports_with_marks_for_what_is_missing_and_the_latest_row_first(tmp_path):
    path = tmp_path / "awn.csv"
    rows = ["STATION_ID,TIMESTAMP_PST,AT_F,RH_PCNT,SWP8_KPA"]
    for hour in (3, 2, 1, 0):
        rows += [
            f"100326,06/0{5}/2018 0{hour}:00,{50 + hour},54.5,-589.9",
            f"100328,06/0{5}/2018 0{hour}:00,{40 + hour},{'NA' if hour == 3 else 50},-589.9",
        ]
    path.write_text("\n".join(rows))
    records = read_records(
        path, ["AT_F", "RH_PCNT", "SWP8_KPA"], time="TIMESTAMP_PST", station="STATION_ID", gaps=["-589.9"]
    )
    assert records.times[0] == "2018-06-05 00:00:00" and records.values[:, 0, 0].tolist() == [50, 51, 52, 53]
    assert np.isnan(records.values[:, :, 2]).all() and np.isnan(records.values[3, 1, 1])
    path.write_text("\n".join([*rows, rows[-1]]))
    with pytest.raises(TierformError, match="a second row"):
        read_records(path, ["AT_F"], time="TIMESTAMP_PST", station="STATION_ID", gaps=())


@given(st.lists(st.text(alphabet='ab,\n"#-/0123456789. N', max_size=40), max_size=8))
def test_no_text_breaks_the_reader_otherwise_than_by_a_clear_error(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text("\n".join(["date,station,a", *lines]))
    try:
        records = read_records(path, ["a"], gaps=())
    except TierformError:
        return
    assert records.values.shape == (len(records.times), len(records.stations), 1)


def test_a_file_of_tierform_tune_reaches_the_samples(tmp_path):
    lines = ["date,county,state,fips,cases,deaths"]
    for day in range(56):
        when = f"2020-{4 + day // 28:02d}-{day % 28 + 1:02d}"
        lines += [f"{when},C,S,{one:05d},{day * (day + one)},0" for one in range(60) if (one, day) != (7, 30)]
    (tmp_path / "us-counties.csv").write_text("\n".join(lines))
    text = """
model: covid
steps: 1000
data: {stations: us-counties.csv, station: fips, target: cases, difference: true, history: 19, choose: true,
       gaps: drop, test_times: ["2020-05"]}
output: run
"""
    (tmp_path / "covid.yaml").write_text(text)
    split = load_split(load_config(tmp_path / "covid.yaml"), tierform.load_model("hpt-covid"))
    assert split.train.inputs.shape == (28 - 1 - 19, 50, 19)  # a day is lost to the difference
    assert split.test.inputs.shape == (28 - 19, 50, 19)
    daily = np.diff(split.train.targets[:, 3] * split.train.scale)
    assert daily == pytest.approx(2, rel=1e-3)  # cases grow as day * (day + one)
    (tmp_path / "covid.yaml").write_text(text.replace("us-counties.csv", "us-countys.csv"))
    with pytest.raises(TierformError, match="no such file"):
        load_config(tmp_path / "covid.yaml")
