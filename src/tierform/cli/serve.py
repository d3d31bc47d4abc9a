"""``tierform serve MODEL --chip CHIP --trace FILE``: what many users get, and at how many joules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import click

from tierform.cli.output import InputPath, OutputFile, console, json_option, one_thread, print_table, progress
from tierform.cli.serve_check import Reader, all_at_once, enough_replicas, numbers_right, whole_numbers, wrong_numbers
from tierform.cli.serve_fleet import fleet_of, fleet_options
from tierform.cli.serve_show import candidate, show
from tierform.errors import Problem, TierformError, fail
from tierform.units import parse_quantity

if TYPE_CHECKING:
    from tierform.serving.engine import Engine
    from tierform.serving.requests import Requests
    from tierform.serving.service import Service

    class _Run(Protocol):
        """Serves requests on (chips, chips of a replica, replicas of each); `sequences` of a batch at most."""

        def __call__(
            self, chip: str, tensor: int, replicas: list[int], requests: Requests, sequences: int | None = None
        ) -> Service: ...


Files = tuple[Path | None, Path | None, Path | None, Path | None]
PATTERNS = ["poisson", "gamma", "bursts", "diurnal", "even"]
MOST_RECORDED = 20_000  # requests whose steps are kept for the page


@click.command("serve")
@click.argument("model")
@click.option("--chip", help="A chip of the library or a YAML file; several, separated by commas, make pools.")
@click.option("--chips", help="For --find cheapest: chips, separated by commas.")
@click.option(
    "--trace", type=InputPath(), help="Requests to replay: Azure, Mooncake, BurstGPT, vidur (docs/serving.md)."
)
@click.option("--rate", type=float, help="Requests a second, instead of a trace.")
@click.option("--requests", "number", type=int, default=1000, show_default=True, help="How many, with --rate.")
@click.option("--pattern", type=click.Choice(PATTERNS), default="poisson", show_default=True, help="How they arrive.")
@click.option("--prompt", type=float, default=1024, show_default=True, help="Mean tokens of a prompt, with --rate.")
@click.option("--output", type=float, default=256, show_default=True, help="Mean tokens of an answer, with --rate.")
@click.option("--adapters", type=int, default=0, help="Each request asks for one of so many (enable_lora).")
@click.option("--variation", type=float, default=0.0, show_default=True, help="Coefficient of variation of both.")
@click.option("--load", type=float, default=1.0, show_default=True, help="Replay the trace this much faster.")
@click.option("--first", type=int, help="Only the first requests of the trace.")
@click.option("--engine", type=InputPath(), help="An engine file with the names that vLLM uses (docs/serving.md).")
@click.option("--draft", help="Who drafts tokens that a step verifies: model:NAME, or lookup.")
@click.option("--draft-tokens", type=int, default=4, show_default=True, help="Tokens drafted in a step, with --draft.")
@click.option("--acceptance", type=float, default=0.8, show_default=True, help="Chance that a draft is accepted.")
@click.option("--replicas", default="1", show_default=True, help="Copies of the model; a number for each chip.")
@click.option("--router", default="least-loaded", show_default=True, help="Which copy gets a request.")
@click.option("--tensor", default="1", show_default=True, help="Chips of a replica; with --find cheapest a list.")
@click.option("--pipeline", type=int, default=1, show_default=True, help="Stages of a replica, each of --tensor chips.")
@click.option("--expert-parallel", is_flag=True, help="The chips of --tensor share experts whole, not each expert.")
@click.option("--runtime", help="What the software adds.  [default: vllm on a GPU, else ideal]")
@click.option("--tables", type=InputPath(), help="Measured tables instead of simulated ones (a folder).")
@click.option("--slo", help="The most a request may take, as ttft=0.5s,tpot=50ms,e2e=20s.")
@click.option(
    "--find", type=click.Choice(["load", "cheapest"]), help="The highest load, or the cheapest configuration."
)
@click.option("--most", type=int, default=64, show_default=True, help="For --find cheapest: copies at most.")
@click.option("--batches", help="For --find cheapest: max_num_seqs to try, as 64,256.  [default: the engine's]")
@click.option("--within", type=float, default=0.99, show_default=True, help="Share of requests that must keep the SLO.")
@click.option("--price", help="Price of a chip-hour, as h100=2.5,l40s=0.9, for --find cheapest.")
@click.option("--turns", type=float, help="With --rate: sessions of so many turns, each after the answer before it.")
@click.option(
    "--think", default="10s", show_default=True, help="With --turns: mean time between an answer and the next."
)
@fleet_options
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--save-timeline", type=OutputFile(), help="Write every step as a timeline for Perfetto (JSON).")
@click.option("--save-requests", type=OutputFile(), help="Write one row for each request: CSV, or Parquet.")
@click.option("--report", type=OutputFile(), help="Write the studio's page of it as one file that opens offline.")
@json_option
def command(
    model: str,
    chip: str | None,
    json_file: Path | None,
    save_requests: Path | None,
    save_timeline: Path | None,
    report: Path | None,
    find: str | None,
    **given: Any,
) -> None:
    """What many users of MODEL get from chips over time: TTFT, TPOT, goodput, joules a token.

    MODEL is a name of the library (`tierform list models`), a folder with a config.json, or a Hub id.
    """
    one_thread()
    with all_at_once(lambda: _readers(model, chip, find, given)):
        numbers_right(given)
        if find == "cheapest":
            if report:
                fail("shows one configuration", key="--report", fix="Give --json FILE, then: tierform studio FILE.")
            _cheapest(model, given, json_file)
            return
        _one(model, chip, find, given, (json_file, save_requests, save_timeline, report))


def _one(model: str, chip: str | None, find: str | None, given: dict[str, Any], files: Files) -> None:
    """Serve on one configuration, or find the load that it bears; write and show what came out."""
    json_file, save_requests, save_timeline, report = files
    if chip is None:
        fail("is missing", key="--chip", fix="Name a chip: tierform list chips.")
    requests = _requests(given)
    with progress() as bar:
        shown = (json_file or report) is not None and len(requests) <= MOST_RECORDED
        run = _runner(model, {**given, "record": save_timeline is not None or shown}, bar)
        if find == "load":
            _write(_load(run, chip, requests, given), json_file, report)
            return
        made = run(
            chip,
            whole_numbers(given["tensor"], "--tensor")[0],
            whole_numbers(given["replicas"], "--replicas"),
            requests,
        )
    if json_file or report:
        from tierform.report.service_view import service_content

        _write(service_content(made), json_file, report)
    if save_requests:
        made.write_requests(save_requests)
    if save_timeline:
        from tierform.serving.timeline import write_timeline

        write_timeline(made, save_timeline)
    show(made)
    for kind, path in zip(("figures", "requests", "timeline", "pages"), files, strict=True):
        if path:
            console().print(f"{kind}: {path}", soft_wrap=True)


def _readers(model: str, chip: str | None, find: str | None, given: dict[str, Any]) -> Iterator[Reader]:
    """All that read options, each by itself: what one refuses does not hide what another would."""
    from tierform.chip.description import load_chip
    from tierform.serving.routers import number_of
    from tierform.serving.slo import parse_slo
    from tierform.simulation.runtime import load_runtime
    from tierform.workload import load_model

    chips = (given["chips"] if find == "cheapest" else chip) or ""
    names = [one.strip() for one in chips.split(",") if one.strip()]
    yield lambda: numbers_right(given)
    if (given["trace"] is None) != (given["rate"] is None) and not wrong_numbers(given):
        yield lambda: _requests(given)
    yield lambda: load_model(model)
    for name in names:
        yield partial(load_chip, name)
    yield lambda: _engine(given)
    draft = (given["draft"] or "").removeprefix("model:")
    if draft != (given["draft"] or ""):
        yield lambda: load_model(draft)
    yield lambda: parse_slo(given["slo"] or "")
    yield lambda: fleet_of(given)
    yield lambda: whole_numbers(given["tensor"], "--tensor")
    if given["batches"]:
        yield lambda: whole_numbers(given["batches"], "--batches")
    if given["price"]:
        yield lambda: _prices(given["price"], names)
    if find != "cheapest":
        yield lambda: enough_replicas(chip, given["replicas"])
    yield lambda: number_of(given["router"])
    if given["runtime"]:
        yield lambda: load_runtime(given["runtime"])


def _write(content: Mapping[str, Any], json_file: Path | None, report: Path | None) -> None:
    """Write the figures, and the studio's page of them."""
    from tierform.files import write_json

    if json_file:
        write_json(json_file, content)
    if report:
        from tierform.studio.content import Opened, service_runs
        from tierform.studio.export import write_opened

        write_opened(report, Opened(services=tuple(service_runs(content))))


def _requests(given: dict[str, Any]) -> Requests:
    """The requests that the options describe."""
    from tierform.serving.arrivals import Lengths, generate, sessions
    from tierform.serving.traces import load_trace

    if (given["trace"] is None) == (given["rate"] is None):
        fail("either a trace or a rate is needed", key="--trace, --rate", fix="Give one of them.")
    if given["turns"] is not None and given["trace"] is not None:
        fail("sessions are made with --rate", key="--turns", value=given["turns"])
    if given["trace"] is None:
        prompt, output = (Lengths(given[name], given["variation"]) for name in ("prompt", "output"))
        if given["turns"] is not None:
            think_s = parse_quantity(given["think"], "s", key="--think")
            if think_s < 0:
                fail("must not be negative", key="--think", value=given["think"])
            seed, turns = given["seed"], given["turns"]
            made = sessions(given["rate"], given["number"], turns, think_s, prompt, output, closed=True, seed=seed)
        else:
            made = generate(given["rate"], given["number"], prompt, output, given["pattern"], seed=given["seed"])
        return _adapted(made, given)
    found = load_trace(given["trace"])
    if given["first"] is not None:
        found = found.first(given["first"])
    return _adapted(found.faster(given["load"]) if given["load"] != 1.0 else found, given)


def _adapted(requests: Requests, given: dict[str, Any]) -> Requests:
    from tierform.serving.arrivals import with_adapters

    return with_adapters(requests, given["adapters"], given["seed"]) if given["adapters"] else requests


def _engine(given: dict[str, Any]) -> Engine:
    from dataclasses import replace

    from tierform.serving.engine import Engine, Speculation, load_engine

    engine = load_engine(given["engine"]) if given["engine"] is not None else Engine()
    if given["draft"] is None:
        return engine
    kind, _, name = given["draft"].partition(":")
    if (kind, bool(name)) not in (("model", True), ("lookup", False)):
        fail("is not known", key="--draft", value=given["draft"], fix="Write model:llama-3.2-1b, or lookup.")
    method: Literal["draft_model", "ngram"] = "draft_model" if name else "ngram"
    return replace(
        engine, speculative_config=Speculation(given["draft_tokens"], given["acceptance"], method, name or None)
    )


def _runner(model: str, given: dict[str, Any], bar: Any) -> _Run:
    """A call that serves requests on (chip, chips of a replica, replicas)."""
    from dataclasses import replace

    from tierform.serving.measured import load_tables
    from tierform.serving.serve import serve
    from tierform.serving.slo import Slo, parse_slo
    from tierform.workload import load_model
    from tierform.workload.parallel import Parallelism

    loaded = load_model(model)
    engine = _engine(given)
    slo = parse_slo(given["slo"]) if given["slo"] else Slo()
    oracle = load_tables(given["tables"], loaded.layers) if given["tables"] is not None else None
    tasks: dict[str, Any] = {}

    def told(what: str, share: float) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=1.0)
        bar.update(tasks[what], completed=share)

    def run(chip: str, tensor: int, replicas: list[int], requests: Requests, sequences: int | None = None) -> Service:
        return serve(
            loaded,
            [one.strip() for one in chip.split(",")],
            requests,
            engine=engine if sequences is None else replace(engine, max_num_seqs=sequences),
            replicas=replicas,
            router=given["router"],
            parallelism=Parallelism(
                tensor=tensor, pipeline=given["pipeline"], expert=tensor if given["expert_parallel"] else 1
            ),
            runtime=given["runtime"],
            oracle=oracle,
            slo=slo,
            seed=given["seed"],
            record=bool(given.get("record")),
            fleet=fleet_of(given),
            progress=told,
        )

    return run


def _load(run: _Run, chip: str, requests: Requests, given: dict[str, Any]) -> Mapping[str, Any]:
    """The highest load within the SLO: told, and as the content of a file."""
    from tierform.report.load_search import LoadSearch
    from tierform.serving.find import highest_load

    if not given["slo"]:
        fail("a load is searched under an SLO", key="--slo", fix="For example --slo ttft=0.5s,tpot=50ms.")
    tensor, copies = whole_numbers(given["tensor"], "--tensor")[0], whole_numbers(given["replicas"], "--replicas")
    search = LoadSearch(requests, given["within"])
    followed = search.follow(lambda some: run(chip, tensor, copies, some))
    best, tried = highest_load(followed, requests, given["within"])
    if best is None:
        console().print(f"no load keeps {given['slo']} for {given['within']:.0%} of the requests", style="bold")
    else:
        text = f"{best.offered_per_s:.4g} requests/s ({best.factor:.4g} times the load) keep {given['slo']}"
        console().print(f"{text} for {best.within:.1%} of the requests", style="bold")
    rows = [[f"{one.offered_per_s:.4g}", f"{one.within:.1%}", f"{one.goodput_per_s:.4g}"] for one in tried]
    print_table("Goodput over load", ["offered a second", "within the SLO", "goodput a second"], rows)
    return search.content(best)


def _cheapest(model: str, given: dict[str, Any], json_file: Path | None) -> None:
    from tierform.chip.description import load_chip
    from tierform.files import write_json
    from tierform.report.service_view import service_content
    from tierform.serving.find import cheapest

    names = [one.strip() for one in (given["chips"] or "").split(",") if one.strip()]
    if not names or not given["slo"]:
        missing = [key for key, value in (("--chips", names), ("--slo", given["slo"])) if not value]
        raise TierformError([Problem("is missing", key=key, fix="The search needs it.") for key in missing])
    if given["pipeline"] != 1:
        fail(
            "the search counts chips of --tensor alone", key="--pipeline", value=given["pipeline"], fix="Leave it out."
        )
    prices = _prices(given["price"], names)
    requests = _requests(given)
    batches = whole_numbers(given["batches"], "--batches") if given["batches"] else [_engine(given).max_num_seqs]
    options = [
        (name, tensor, batch)
        for name in names
        for tensor in whole_numbers(given["tensor"], "--tensor")
        for batch in batches
    ]
    with progress() as bar:
        run = _runner(model, given, bar)
        found = cheapest(
            options,
            lambda chip, tensor, batch, replicas: run(chip, tensor, [replicas], requests, batch),
            lambda chip: load_chip(chip).area_m2,
            given["within"],
            prices,
            given["most"],
        )
    by = "price" if prices else "energy"
    if json_file:
        content = [
            {
                "chip": one.chip,
                "tensor": one.tensor,
                "max_num_seqs": one.sequences,
                "replicas": one.replicas,
                "area_m2": one.area_m2 * one.chips,
                "cost": one.cost,
                **service_content(one.service),
            }
            for one in found
        ]
        write_json(json_file, {"by": by, "found": content})
    if not found:
        console().print(f"nothing that was tried keeps {given['slo']} for {given['within']:.0%}", style="bold")
        return
    best = found[0]
    console().print(f"cheapest by {by}: {best.replicas} x {best.tensor} {best.chip}", style="bold")
    rows = [candidate(one) for one in found]
    print_table(
        "What keeps the SLO", ["chip", "chips", "batch", "within", "J a token", "power", "area", "price/h"], rows
    )


def _prices(text: str | None, names: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    problems = []
    for part in filter(None, (text or "").split(",")):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = math.nan
            fix = "Write it as h100=2.5,l40s=0.9."
            problems.append(Problem("a price is a number", key="--price", value=part, fix=fix))
        else:
            if not 0 <= found[name.strip()] < math.inf:
                problems.append(Problem("a price is 0 or more", key="--price", value=part))
    if found and set(found) != set(names):
        problems.append(Problem("a price for every chip is needed, and for no other", key="--price", value=text))
    if problems:
        raise TierformError(problems)
    return found
