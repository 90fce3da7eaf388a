"""Asks other engines the rules of `make bench-compile`, over the same events, with one thread.

usage: peers.py FOLDER

Reads `questions.json` and `events.bin` of the folder, where the bench has put them, and prints one JSON object:
for each engine and question the median of its times in milliseconds, and the number of members of each rule.
"""

import json
import shutil
import statistics
import sys
import time
from pathlib import Path

import chdb.session
import duckdb
import numpy as np
import pyarrow
from pyroaring import BitMap

EVENT = np.dtype([("visitor", "<u4"), ("trait", "<u2"), ("day", "<u2"), ("millis", "<u4"), ("cents", "<u4")])
COLUMNS = "visitor UInt32, trait UInt16, day UInt16, millis UInt32, cents UInt32"


def say(text):
    print(text, file=sys.stderr, flush=True)


def timed(answer, rules, most):
    """The counts of all rules, and the median of some times that they take together."""
    times = []
    while True:
        begun = time.perf_counter()
        counts = [answer(rule) for rule in rules]
        times.append((time.perf_counter() - begun) * 1e3)
        # What takes long is asked less often.
        if len(times) >= most or sum(times) > 4000:
            return {"ms": statistics.median(times), "counts": counts}


def leaves(rule):
    return [leaf for group in rule["groups"] for leaf in group["leaves"]]


def is_presence(rule):
    return all(leaf["count"] == 1 and leaf["cents"] is None for leaf in leaves(rule))


class Sql:
    """A rule as SQL over events: one scan of its traits, grouped by visitor."""

    def __init__(self, days, count_if, sum_if, distinct, now=None):
        self.days, self.count_if, self.sum_if, self.distinct, self.now = days, count_if, sum_if, distinct, now

    def since(self, days):
        if self.now is None:
            return f"day >= {self.days - days}"
        return f"moment >= {self.now - days * 86_400_000} AND moment <= {self.now}"

    def fits(self, leaf):
        kind = "" if leaf["cents"] is None else " AND cents > 0"
        return f"(trait = {leaf['trait']} AND {self.since(leaf['days'])}{kind})"

    def group(self, group):
        present = [self.fits(leaf) for leaf in group["leaves"] if leaf["count"] == 1 and leaf["cents"] is None]
        terms = [f"{self.count_if(' OR '.join(present))} > 0"] if present else []
        for leaf in group["leaves"]:
            if leaf["cents"] is not None:
                terms.append(f"{self.sum_if('cents', self.fits(leaf))} >= {leaf['cents']}")
            elif leaf["count"] > 1:
                terms.append(f"{self.count_if(self.fits(leaf))} >= {leaf['count']}")
        text = "(" + " OR ".join(terms) + ")"
        return f"NOT {text}" if group["not"] else text

    def rule(self, rule):
        traits = ", ".join(str(trait) for trait in sorted({leaf["trait"] for leaf in leaves(rule)}))
        where = f"trait IN ({traits}) AND {self.since(max(leaf['days'] for leaf in leaves(rule)))}"
        if len(rule["groups"]) == 1 and is_presence(rule):
            where += f" AND ({' OR '.join(self.fits(leaf) for leaf in leaves(rule))})"
            return f"SELECT {self.distinct} FROM events WHERE {where}"
        having = " AND ".join(self.group(group) for group in rule["groups"])
        return f"SELECT count(*) FROM (SELECT visitor FROM events WHERE {where} GROUP BY visitor HAVING {having}) AS members"


def asked(questions, ask, sql, which):
    return {
        name: timed(lambda rule: ask(sql.rule(rule)), questions["rules"][name], 5)
        for name in which
        if name in questions["rules"]
    }


def click_house(folder, questions):
    place = folder / "clickhouse"
    shutil.rmtree(place, ignore_errors=True)
    session = chdb.session.Session(str(place))

    def ask(text):
        return int(session.query(f"{text} SETTINGS max_threads = 1", "TSV").data().split()[0])

    session.query("CREATE DATABASE bench ENGINE = Atomic")
    session.query("USE bench")
    session.query(f"CREATE TABLE events ({COLUMNS}) ENGINE = MergeTree ORDER BY (trait, day, visitor)")
    session.query(f"INSERT INTO events SELECT * FROM file('{folder / 'events.bin'}', RowBinary, '{COLUMNS}')")
    session.query("OPTIMIZE TABLE events FINAL")
    session.query(
        "CREATE TABLE bitmaps ENGINE = MergeTree ORDER BY (trait, day) AS "
        "SELECT trait, day, groupBitmapState(visitor) AS members FROM events GROUP BY trait, day"
    )
    session.query("OPTIMIZE TABLE bitmaps FINAL")
    sql = Sql(questions["days"], lambda c: f"countIf({c})", lambda v, c: f"sumIf({v}, {c})", "uniqExact(visitor)")

    def of_bitmaps(rule):
        united, rows = [], set()
        for group in rule["groups"]:
            fits = " OR ".join(sql.fits(leaf) for leaf in group["leaves"])
            united.append((group["not"], f"groupBitmapMergeStateIf(members, {fits})"))
            rows |= {(leaf["trait"], leaf["days"]) for leaf in group["leaves"]}
        united.sort(key=lambda part: part[0])
        text = united[0][1]
        for negated, part in united[1:]:
            text = f"{'bitmapAndnot' if negated else 'bitmapAnd'}({text}, {part})"
        traits = ", ".join(str(trait) for trait in sorted({trait for trait, _ in rows}))
        since = sql.since(max(days for _, days in rows))
        return ask(f"SELECT bitmapCardinality({text}) FROM bitmaps WHERE trait IN ({traits}) AND {since}")

    empty = timed(lambda _: ask("SELECT 1"), [None] * 20, 5)["ms"] / 20
    say(f"asking ClickHouse of events; a query of nothing takes it {empty:.1f} ms")
    events = asked(questions, ask, sql, ["R1", "R2", "R3", "R4", "R5", "R6"])
    say("asking ClickHouse of bitmaps")
    presence = ["R1", "R2", "R5", "R6b"]
    bitmaps = {name: timed(of_bitmaps, questions["rules"][name], 5) for name in presence}
    session.close()
    shutil.rmtree(place, ignore_errors=True)
    return {"clickhouse": events, "clickhouse_bitmaps": bitmaps}


def duck_db(events, questions):
    database = duckdb.connect()
    database.execute("SET threads = 1")
    table = pyarrow.table({name: np.ascontiguousarray(events[name]) for name in EVENT.names})
    database.register("given", table)
    database.execute(
        "CREATE TABLE events AS SELECT *, day::BIGINT * 86400000 + millis AS moment FROM given ORDER BY trait, day, visitor"
    )
    database.unregister("given")
    del table

    def ask(text):
        return database.execute(text).fetchone()[0]

    def sql(now=None):
        count_if, sum_if = (lambda c: f"count(*) FILTER ({c})"), (lambda v, c: f"sum({v}) FILTER ({c})")
        return Sql(questions["days"], count_if, sum_if, "count(DISTINCT visitor)", now)

    say("asking DuckDB")
    whole = asked(questions, ask, sql(), ["R1", "R2", "R3", "R4", "R5", "R6"])
    midday = asked(questions, ask, sql(questions["midday"]), ["R1", "R2", "R3", "R4", "R5"])
    database.close()
    return {"duckdb": whole, "duckdb_midday": midday}


def croaring(events, questions):
    order = np.lexsort((events["visitor"], events["day"], events["trait"]))
    of_day = {}
    place = events["trait"][order].astype(np.int64) * questions["days"] + events["day"][order]
    edges = np.flatnonzero(np.diff(place)) + 1
    for part in np.split(order, edges):
        first = events[part[0]]
        of_day[int(first["trait"]), int(first["day"])] = BitMap(np.unique(events["visitor"][part]))
    days = questions["days"]

    def union(group):
        return BitMap.union(
            *(of_day[leaf["trait"], day]
              for leaf in group["leaves"]
              for day in range(days - leaf["days"], days)
              if (leaf["trait"], day) in of_day)
        )

    def answer(rule):
        members = None
        for group in sorted(rule["groups"], key=lambda group: group["not"]):
            united = union(group)
            if members is None:
                members = united
            elif group["not"]:
                members -= united
            else:
                members &= united
        return len(members)

    say("asking CRoaring")
    return {"croaring": {name: timed(answer, questions["rules"][name], 9) for name in ["R1", "R2", "R5", "R6b"]}}


def main():
    folder = Path(sys.argv[1]).resolve()
    questions = json.loads((folder / "questions.json").read_text())
    found = click_house(folder, questions)
    events = np.fromfile(folder / "events.bin", dtype=EVENT)
    found |= croaring(events, questions)
    found |= duck_db(events, questions)
    print(json.dumps(found))


main()
