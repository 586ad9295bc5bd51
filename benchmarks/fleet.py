"""What does a cache of teacher outputs cost on a fleet, in time and money, and what breaks first?

First it measures on this machine (`fleet_constants.py`): what a shard takes beyond its teacher,
`finish` over many notes, requests to a store for each step, bytes of a sample, bytes read over
bytes of the data, the makespan on Ray with a worker that is slow, shards that Ray's driver gives
out in a second. Then it reckons with these numbers what two large caches take, draws stragglers
and failures of a fleet from stated distributions, and says at which size which part gives way.

    python benchmarks/fleet.py
    python benchmarks/fleet.py --image-rate 2000 --machine-hour 4 --slow-share 0.05

Prices, rates and limits of stores are arguments, and assumptions: round numbers of December 2026 of
the order of what large stores ask, of no vendor. Needs `pip install 'keras-kd[cloud,ray]' moto
s3fs`.
"""

import argparse
import collections
import dataclasses
import heapq
import math
import os
import pathlib
import statistics
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the CPU is what is measured
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tests have the server and slow sources

import fleet_constants as constants
import numpy as np

# ImageNet of fall 2011: https://image-net.org/about.php
IMAGES, IMAGE_CLASSES = 14_197_122, 21_841
# Of winter 2021, with 13,151,276 images, 646 GB in WebP at about 56 % of JPEG:
# https://huggingface.co/datasets/timm/imagenet-w21-webp-wds
IMAGE_BYTES = 646e9 / 0.56 / 13_151_276
TOKENS, WORDS = 10**12, 32_000
TOP_K = {"top_k": 50}
COMPACT = {"top_k": 50, "dtype": "compact"}
# A store's client uploads larger objects in parts of this size, and reads them so.
PART = 50 * 2**20


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--notes", type=int, default=10_000, help="shards whose notes `finish` reads")
    add("--store-notes", type=int, default=500, help="the same, on the S3 server")
    add("--rounds", type=int, default=3)
    add("--ray-workers", type=int, nargs="*", default=[2])
    add("--only-ray", action="store_true", help="only what a slow worker costs")
    add("--ray-rounds", type=int, default=2)
    add("--ray-seconds", type=float, default=1.0, help="of a shard, where a worker is slow")
    add("--image-rate", type=float, default=500, help="images a second and worker")
    add("--token-rate", type=float, default=20_000, help="tokens a second and worker")
    add("--image-shards", type=int, default=10_000)
    add("--token-shards", type=int, default=1_000_000)
    add("--machine-hour", type=float, default=2.0, help="dollars; assumed")
    add("--put", type=float, default=0.005, help="dollars for 1,000 PUT, LIST; assumed")
    add("--get", type=float, default=0.0004, help="dollars for 1,000 GET, HEAD; assumed")
    add("--month", type=float, default=0.023, help="dollars for a GB and month; assumed")
    add("--latency", type=float, default=0.03, help="seconds of a request to a store; assumed")
    add("--put-limit", type=float, default=3500, help="PUT a second and prefix; assumed")
    add("--sigma", type=float, default=0.1, help="of the log-normal of a shard's time")
    add("--slow-share", type=float, default=0.02, help="of the machines")
    add("--slow", type=float, default=10, help="how many times slower these are")
    add("--failure-hours", type=float, default=100, help="mean time to a machine's failure")
    add("--restart", type=float, default=180, help="seconds until another one has the teacher")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def table(title, *rows):
    """Prints rows of equal length, the first of them the header."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(len(rows[0]))]
    print(f"\n{title}", flush=True)
    for row in texts:
        first, *rest = (
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]))


@dataclasses.dataclass
class Constants:
    """What was measured here; seconds and bytes are of one shard where nothing else is said."""

    shard: float
    store_shard: float
    notes: constants.Notes
    store_notes: constants.Notes
    requests: dict
    at_once: float
    samples: dict
    read: dict
    dispatches: float


def measured(args, folder):
    forms = {
        "image, float16": (IMAGE_CLASSES, {}),
        "image, top 50": (IMAGE_CLASSES, TOP_K),
        "image, top 50, compact": (IMAGE_CLASSES, COMPACT),
        "token, top 50": (WORDS, TOP_K),
        "token, top 50, compact": (WORDS, COMPACT),
    }
    samples = {
        name: constants.bytes_of_a_sample(folder / f"form-{i}", classes, **options)
        for i, (name, (classes, options)) in enumerate(forms.items())
    }
    shard = constants.seconds_of_a_shard(folder / "shards", 64, args.rounds)
    notes = constants.notes(folder / "notes", args.notes)
    requests, at_once = constants.requests(32), constants.requests_at_once(256)
    store_shard, store_notes = constants.store_seconds(args.store_notes, args.rounds)
    read = {n: constants.bytes_read(folder / f"read-{n}", n) for n in (1, 2)}
    dispatches = constants.dispatches(folder, 2, 2000)
    return Constants(
        shard,
        store_shard,
        notes,
        store_notes,
        requests,
        at_once,
        samples,
        read,
        dispatches,
    )


def show_measured(found):
    def each(seconds, notes):
        return f"{1e3 * seconds / notes.shards:.3f}"

    local, store = found.notes, found.store_notes
    table(
        "measured: milliseconds of a shard",
        ["", "a folder", "moto's S3 server"],
        [
            "writing, beyond its teacher",
            f"{1e3 * found.shard:.1f}",
            f"{1e3 * found.store_shard:.1f}",
        ],
        ["shards with notes", f"{local.shards:,}", f"{store.shards:,}"],
        ["pending(), by listing", each(local.pending, local), each(store.pending, store)],
        ["finish(), by names", each(local.finish, local), each(store.finish, store)],
        ["finish() again", each(local.again, local), each(store.again, store)],
        ["load_cache(verify=False)", each(local.open, local), each(store.open, store)],
    )
    table(
        "bytes of a shard",
        ["manifest.json", "in a reader's memory", "in a job that is sent"],
        [f"{local.manifest:.0f}", f"{local.memory:.0f}", f"{local.job:.0f}"],
    )
    kinds = ["PUT", "LIST", "GET", "HEAD"]
    rows = [[step, *(f"{n[kind]:g}" for kind in kinds)] for step, n in found.requests.items()]
    table("requests", ["", *kinds], *rows)
    print(f"requests of finish() at one time: {found.at_once:.1f}")
    rows = [[name, f"{size:,.0f}"] for name, size in found.samples.items()]
    table("bytes of a sample", ["", "bytes"], *rows)
    rows = [[n, f"{ratio:.3f}"] for n, ratio in found.read.items()]
    table("bytes read / bytes of the data", ["processes", "ratio"], *rows)
    print(f"\nRay's driver gives out {found.dispatches:,.0f} shards a second")


# A fleet, simulated.


def simulate(takes, speeds, rng, *, backups=True, failure=math.inf, restart=0.0):
    """A job as `on_ray` runs it.

    Args:
        takes: Seconds of each shard on a machine of speed 1.
        speeds: Of the machines.
        rng: Draws failures.
        backups: Whether shards that take twice the median are begun again when none are left.
        failure: Mean seconds to the failure of a machine that works.
        restart: Seconds until another machine is in its place.

    Returns:
        `(makespan, tries)`.
    """
    queue, idle, running = collections.deque(range(len(takes))), [], {}
    done, again, tries, took = np.zeros(len(takes), bool), set(), 0, []
    events = [(0.0, worker, "free") for worker in range(len(speeds))]
    left, now, look, patience = len(takes), 0.0, math.inf, None
    while left:
        now, worker, what = heapq.heappop(events)
        if what == "look":
            look = math.inf
        else:
            shard, begun = running.pop(worker, (None, now))
            if what == "done" and not done[shard]:
                done[shard], left = True, left - 1
                took.append(now - begun)
            if what == "lost":
                if not done[shard] and all(other != shard for other, _ in running.values()):
                    queue.appendleft(shard)
                heapq.heappush(events, (now + restart, worker, "free"))
            else:
                idle.append(worker)
        while idle:
            if queue:
                shard = queue.popleft()
            else:
                slow = []
                if backups and took:
                    patience = patience or 2 * statistics.median(took)
                    slow = sorted(
                        (begun + patience, each)
                        for each, begun in running.values()
                        if not done[each] and each not in again
                    )
                if not slow:
                    break
                if slow[0][0] > now:
                    if slow[0][0] < look:
                        look = slow[0][0]
                        heapq.heappush(events, (look, -1, "look"))
                    break
                shard = slow[0][1]
                again.add(shard)
            worker, tries = idle.pop(), tries + 1
            running[worker] = shard, now
            end, lost = takes[shard] / speeds[worker], rng.exponential(failure)
            event = (now + end, worker, "done") if end <= lost else (now + lost, worker, "lost")
            heapq.heappush(events, event)
    return now, tries


def show_stragglers(args, folder):
    """Makespans with a slow worker over undisturbed ones: measured, simulated, the least."""
    rng, rows = np.random.default_rng(args.seed), []
    for workers in args.ray_workers:
        makespans = constants.stragglers(
            folder, workers, args.ray_seconds, args.ray_rounds, args.slow
        )
        takes = np.full(12 * workers, args.ray_seconds)
        speeds = np.ones(workers)
        plain = simulate(takes, speeds, rng)[0]
        speeds[0] /= args.slow
        for name, backups in (("backups", True), ("none", False)):
            pairs = zip(makespans[name], makespans["undisturbed"], strict=True)
            ratio = statistics.median(one / other for one, other in pairs)
            model = simulate(takes, speeds, rng, backups=backups)[0] / plain
            spread = [one / two for one in makespans[name] for two in makespans["undisturbed"]]
            rows.append([workers, "yes" if backups else "no", f"{ratio:.2f}"])
            rows[-1] += [f"{min(spread):.2f} to {max(spread):.2f}", f"{model:.2f}"]
            rows[-1] += [f"{workers / speeds.sum():.2f}"]
    header = ["workers", "backups", "measured", "spread", "simulated", "least possible"]
    table(f"one worker {args.slow:g} times slower: makespan / undisturbed", header, *rows)


# On paper.


@dataclasses.dataclass
class Case:
    """A cache that is reckoned."""

    name: str
    samples: float
    size: float
    shards: int
    rate: float

    def seconds(self, args, found):
        """Of a shard: the teacher, what writing adds, and requests to a store that is far."""
        waits = sum(found.requests["write, a shard"].values()) * args.latency
        return self.samples / self.shards / self.rate + found.shard + waits

    def requests(self, found):
        """`(PUT and LIST, GET and HEAD)` to write, finish and read once."""
        parts = math.ceil(self.samples * self.size / self.shards / PART)
        puts = gets = 0.0
        for step, counts in found.requests.items():
            times = {"write, a shard": self.shards, "read, a shard": self.shards * parts}.get(step)
            if step.startswith(("pending", "finish")):
                times = self.shards / int(step.split()[1])
            if times is not None:
                puts += times * (counts["PUT"] + counts["LIST"])
                gets += times * (counts["GET"] + counts["HEAD"])
        # Of an upload in parts: each of them, its beginning and its end.
        return puts + self.shards * (parts + 1 if parts > 1 else 0), gets


def cases(args, found):
    yield from (
        Case(name, IMAGES, size, args.image_shards, args.image_rate)
        if name.startswith("image")
        else Case(name, TOKENS, size, args.token_shards, args.token_rate)
        for name, size in found.samples.items()
    )


def show_paper(args, found):
    header = ["", "shards", "MB each", "TB", "objects", "requests", "$ for these"]
    header += ["$ a month", "teacher, hours", "$ for these", "writing adds"]
    rows = []
    for case in cases(args, found):
        size, (puts, gets) = case.samples * case.size, case.requests(found)
        hours, each = case.samples / case.rate / 3600, case.seconds(args, found)
        rows.append([case.name, f"{case.shards:,}", f"{size / case.shards / 1e6:,.0f}"])
        rows[-1] += [f"{size / 1e12:,.3f}", f"{2 * case.shards + 2:,}", f"{puts + gets:,.0f}"]
        rows[-1] += [f"{(puts * args.put + gets * args.get) / 1e3:,.2f}"]
        rows[-1] += [f"{size / 1e9 * args.month:,.2f}", f"{hours:,.0f}"]
        rows[-1] += [f"{hours * args.machine_hour:,.0f}"]
        rows[-1] += [f"{100 * (each * case.shards / hours / 3600 - 1):.1f} %"]
    table("on paper, in a store", header, *rows)
    print(f"the images are {IMAGES * IMAGE_BYTES / 1e12:.2f} TB of JPEG")


def show_fleets(args, found):
    """Wall time by the number of workers, with stragglers and failures."""
    rows = []
    shown = [case for case in cases(args, found) if case.name.endswith("compact")]
    for case, counts in zip(shown, [(8, 64, 512), (512, 4096)], strict=True):
        for workers in counts:
            rng = np.random.default_rng(args.seed)
            each = case.seconds(args, found)
            takes = each * rng.lognormal(-(args.sigma**2) / 2, args.sigma, case.shards)
            speeds = np.where(rng.random(workers) < args.slow_share, 1 / args.slow, 1.0)
            ideal = takes.sum() / workers
            row = [case.name, workers, f"{ideal / 3600:,.2f}", f"{workers / speeds.sum():.3f}"]
            for backups in (True, False):
                options = {"failure": 3600 * args.failure_hours, "restart": args.restart}
                time, tries = simulate(takes, speeds, rng, backups=backups, **options)
                row += [f"{time / ideal:.3f}", f"{tries / case.shards:.4f}"]
            rows.append(row)
    header = ["", "workers", "hours, undisturbed", "least possible"]
    header += ["with backups", "tries a shard", "without", "tries a shard"]
    table(
        f"simulated: log-normal {args.sigma:g}, {100 * args.slow_share:g} % of the machines "
        f"{args.slow:g} times slower, a failure in {args.failure_hours:g} hours",
        header,
        *rows,
    )


def show_limits(args, found):
    """The number at which each part gives way."""
    local, write = found.notes, found.requests["write, a shard"]
    name = next(step for step in found.requests if step.startswith("finish"))
    finish = sum(found.requests[name].values()) / int(name.split()[1])
    image, token = (next(c for c in cases(args, found) if c.name.startswith(n)) for n in ("i", "t"))
    rows = []
    for case in (image, token):
        each, kind = case.seconds(args, found), case.name.split(",")[0]
        rows.append([f"driver of Ray busy, {kind}s: workers", f"{found.dispatches * each:,.0f}"])
        puts = write["PUT"] + write["LIST"]
        rows.append(
            [f"PUT and LIST of a prefix, {kind}s: workers", f"{args.put_limit * each / puts:,.0f}"]
        )
    hour = 3600.0
    rows += [
        ["finish() takes an hour, a folder: shards", f"{hour / local.finish * local.shards:,.0f}"],
        [
            "finish() takes an hour, a store: shards",
            f"{hour * found.at_once / finish / args.latency:,.0f}",
        ],
        # Two names a shard, a thousand in a request, one request after another.
        ["pending() takes a minute, a store: shards", f"{60 / args.latency * 500:,.0f}"],
        ["load_cache() takes a minute: shards", f"{60 / local.open * local.shards:,.0f}"],
        ["manifest.json has 1 GB: shards", f"{1e9 / local.manifest:,.0f}"],
        ["a manifest takes 1 GB of a reader's memory: shards", f"{1e9 / local.memory:,.0f}"],
        ["a job that is sent has 100 MB: shards", f"{1e8 / local.job:,.0f}"],
        [
            "writing adds 1 % in a store: seconds of a shard",
            f"{100 * (found.shard + sum(write.values()) * args.latency):,.0f}",
        ],
    ]
    table("what breaks, and where", ["", "at"], *rows)


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as name:
        if not args.only_ray:
            found = measured(args, pathlib.Path(name))
            show_measured(found)
            show_paper(args, found)
            show_fleets(args, found)
            show_limits(args, found)
        show_stragglers(args, pathlib.Path(name))


if __name__ == "__main__":
    main()
