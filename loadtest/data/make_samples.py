#!/usr/bin/env python3
"""Makes retail.ndjson.gz and web.ndjson.gz from the public data sets named in README.md.

    make_samples.py FOLDER [--out FOLDER] [--key HEX]

FOLDER holds `retail/*.csv` and `web/elastic_apache_logs.log`. Without --key the key that hides the
addresses of the web log is drawn at random and forgotten, so nobody can go back from a cookie to an
address by trying all addresses; every run then makes other cookies, and nothing else differs.
"""

import argparse
import csv
import gzip
import hashlib
import hmac
import json
import re
import secrets
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo

# Customers with more lines are wholesalers who would fill the sample alone.
MOST_LINES = 40
RETAIL_LINES = 4_000

COUNTRIES = {
    "Australia": "AU", "Austria": "AT", "Bahrain": "BH", "Belgium": "BE", "Canada": "CA",
    "Cyprus": "CY", "Czech Republic": "CZ", "Denmark": "DK", "EIRE": "IE", "Finland": "FI",
    "France": "FR", "Germany": "DE", "Greece": "GR", "Hong Kong": "HK", "Iceland": "IS",
    "Israel": "IL", "Italy": "IT", "Japan": "JP", "Malta": "MT", "Netherlands": "NL",
    "Norway": "NO", "Poland": "PL", "Portugal": "PT", "RSA": "ZA", "Singapore": "SG",
    "Spain": "ES", "Sweden": "SE", "Switzerland": "CH", "USA": "US", "United Kingdom": "GB",
}

HIT = re.compile(r'(\S+) \S+ \S+ \[(.*?)\] "(\S+) (\S+)[^"]*" (\d+) \S+ "(.*?)" "(.*)"')
DOWNLOADS = {"c", "conf", "deb", "exe", "gz", "jar", "pdf", "py", "rb", "sh", "tgz", "zip"}
SITE = "https://www.semicomplete.com"


class Number:
    """A decimal that keeps its digits in JSON."""

    def __init__(self, value):
        self.text = format(value.normalize(), "f")


def dump(event):
    numbers = []

    def hold(value):
        numbers.append(value.text)
        return f"\0{len(numbers) - 1}\0"

    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=hold)
    return re.sub(r'"\\u0000(\d+)\\u0000"', lambda m: numbers[int(m[1])], text)


def stamp(moment):
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def retail(folder):
    """Whole customers, in an order that has nothing to do with what they bought."""
    customers = {}
    lines_of_invoice = {}
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                invoice = row["InvoiceNo"]
                lines_of_invoice[invoice] = lines_of_invoice.get(invoice, 0) + 1
                row["line"] = lines_of_invoice[invoice]
                if row["CustomerID"]:
                    customers.setdefault(row["CustomerID"].removesuffix(".0"), []).append(row)
    eligible = [c for c, rows in customers.items() if len(rows) <= MOST_LINES]
    eligible.sort(key=lambda c: hashlib.sha256(c.encode()).digest())
    chosen = []
    for customer in eligible:
        if len(chosen) + len(customers[customer]) > RETAIL_LINES:
            break
        chosen += customers[customer]

    london = ZoneInfo("Europe/London")
    events = []
    for row in chosen:
        refund = row["InvoiceNo"].startswith("C")
        moment = datetime.fromisoformat(row["InvoiceDate"]).replace(tzinfo=london)
        quantity, price = Decimal(row["Quantity"]), Decimal(row["UnitPrice"])
        if refund:
            quantity = -quantity
        event = {
            "site": "demo",
            "event": "refund" if refund else "purchase",
            "time": stamp(moment),
            "message_id": f"{row['InvoiceNo']}-{row['line']}",
            "ids": {"user_id": row["CustomerID"].removesuffix(".0")},
            "props": {
                "invoice": row["InvoiceNo"],
                "sku": row["StockCode"],
                "description": row["Description"].strip(),
                "quantity": Number(quantity),
                "price": Number(price),
                "value": Number(quantity * price),
            },
        }
        country = COUNTRIES.get(row["Country"])
        if country:
            event["attrs"] = {"country": country}
        events.append(event)
    return events


def kind_of(path, query):
    """What a hit was: a page, a feed, a download, or (None) a part of a page."""
    name = path.rsplit("/", 1)[-1]
    extension = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    if "flav=rss" in query or "flav=atom" in query:
        return "feed_read"
    if extension in DOWNLOADS:
        return "download"
    return "page_view" if extension in ("", "html", "xhtml") else None


def web(path, key):
    events = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            match = HIT.match(line)
            if not match:
                continue
            address, moment, method, target, status, referrer, agent = match.groups()
            kind = kind_of(*(target.split("?", 1) + [""])[:2])
            if method != "GET" or status not in ("200", "206", "304") or kind is None:
                continue
            visitor = hmac.new(key, f"{address}\0{agent}".encode(), hashlib.sha256).hexdigest()[:32]
            page = {"url": SITE + target}
            if referrer != "-":
                outside = urlsplit(referrer)
                if not (outside.hostname or "").endswith("semicomplete.com"):
                    # What somebody typed into a search engine is nobody's business here.
                    referrer = urlunsplit((outside.scheme, outside.netloc, outside.path, "", ""))
                page["referrer"] = referrer
            event = {
                "site": "demo",
                "event": kind,
                "time": stamp(datetime.strptime(moment, "%d/%b/%Y:%H:%M:%S %z")),
                "message_id": f"hit-{number}",
                "ids": {"cookie": visitor},
                "page": page,
            }
            if agent != "-":
                event["user_agent"] = agent
            events.append(event)
    return events


def write(path, events):
    events.sort(key=lambda event: event["time"])
    text = "".join(dump(event) + "\n" for event in events)
    # No name and no time in the header: the same events make the same bytes.
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    profiles = {tuple(event["ids"].items()) for event in events}
    print(f"{path.name}: {len(events)} events, {len(profiles)} profiles, "
          f"{path.stat().st_size} bytes, last {events[-1]['time']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--key", type=bytes.fromhex, default=secrets.token_bytes(32))
    args = parser.parse_args()
    write(args.out / "retail.ndjson.gz", retail(args.folder / "retail"))
    write(args.out / "web.ndjson.gz",
          web(args.folder / "web" / "elastic_apache_logs.log", args.key))


if __name__ == "__main__":
    main()
