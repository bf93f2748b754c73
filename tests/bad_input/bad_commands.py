"""Command lines, addresses and keys that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bad_input.case import (
    BASE,
    LEGAL,
    REFUSED,
    RUN,
    Case,
    Named,
    config,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def urls() -> Iterator[Named]:
    """Addresses and keys that cannot be used."""
    no_urls = [
        "http://localhost:9/v1\r\nX: y",
        "http://localhost:9/v1\n",
        "http://local host/v1",
        "http://localhost:99999/v1",
        "http://localhost:-1/v1",
        "http://localhost:x/v1",
        "http://[::1/v1",
        "http://[x]/v1",
        "http://",
        "https://",
        "http:///v1",
        "//localhost/v1",
        "localhost",
        "ftp://localhost/",
        "file:///etc/passwd",
        "javascript:1",
        "http://localhost:9/v1?x=1",
        "http://localhost:9/v1#x",
        "http://u:p@localhost:9/v1",
        "http://localhost\0/v1",
        "https://" + "a" * 64 + ".example/v1",
        "https://" + "a." * 200 + "example/v1",
        "https://xn--/v1",
        "https://é" + "é" * 80 + "/v1",
        "http://0/v1",
        "http://0.0.0.0:9/v1",
        "http://1.2.3.4:9/v1",
        "http://localhost.evil.example/v1",
        "http://127.1:9/v1 ",
        "http://127.0.0.1:9/v1\t",
        "http://127.0.0.1:0/v1",
        "http://127.0.0.1:9/" + "a" * 100_000,
        "https://exa mple.com",
        "https://.example/v1",
        "https://example..com/v1",
        "https://-/v1",
        "HTTP://LOCALHOST:9/v1?",
        "http://localhost:9/v1/%zz\x7f",
        "http://localhost:9/\ud800",
        "http://localhost:9/v1\\x",
        "http:\\\\localhost",
        "sandbox ",
        "Sandbox",
        " http://localhost:9/v1",
    ]
    for url in no_urls:
        yield (
            f"base_url: {url!r:.40}",
            Case(
                config("endpoint", "base_url", value=url),
                codes=REFUSED if any(c in url for c in "\r\n\t\0") else LEGAL | {4},
            )
            if "127.0.0.1:9/a" not in url
            else Case(
                config("endpoint", "base_url", value=url, retry={"attempts": 1, "max_wait": 0.1}),
                codes=REFUSED,
            ),
        )
        if "\0" not in url and "\ud800" not in url:
            yield (
                f"BEATRA_BASE_URL: {url!r:.40}",
                Case(BASE, env={"BEATRA_BASE_URL": url}, args=("check", "config.yaml"), codes=LEGAL),
            )
        yield (
            f"proxy: {url!r:.40}",
            Case(
                config("endpoint", "proxy", value=url, retry={"attempts": 1, "max_wait": 0.1}),
                args=("check", "config.yaml"),
                codes=LEGAL,
            ),
        )
    for key in (
        "",
        " ",
        "\t",
        "\n",
        "sk-a b",
        "sk-a\nb",
        "sk-a\r\nX: y",
        "sk-é",
        "sk-\x7f",
        "sk-" + "a" * 100_000,
        "Bearer sk-a b",
        "“sk-1”",
        "\u200bsk-1",
        "sk-\udcff",
    ):
        codes = REFUSED if len(key) < 1_000 else LEGAL | {4}
        yield f"BEATRA_API_KEY: {key!r:.20}", Case(BASE, env={"BEATRA_API_KEY": key}, codes=codes)
        if not any(c in key for c in "\udcff"):
            yield (
                f"key file: {key!r:.20}",
                Case(config("endpoint", "api_key_file", value="key"), {"key": key.encode()}, codes=REFUSED),
            )
    for variable in ("", " ", "NOT_SET", "A=B", "A\0B", "é", "${X}", "HOME DIR", "x" * 5_000, "A\nB"):
        yield (
            f"api_key_env: {variable!r:.20}",
            Case(config("endpoint", "api_key_env", value=variable), codes=REFUSED),
        )
    for name, value in (
        ("", "a"),
        (" ", "a"),
        ("a b", "c"),
        ("a:b", "c"),
        ("é", "c"),
        ("a\r\n", "c"),
        ("A", "b\r\nc"),
        ("A", "é"),
        ("A", "\0"),
        ("A", "x" * 200_000),
        ("Host", "x"),
        ("content-length", "1"),
        ("A", "b\x7f"),
        ("Authorization", "x"),
        ("A\0", "x"),
    ):
        yield (
            f"header {name!r}: {value!r:.20}",
            Case(config("endpoint", "headers", value={name: value}), codes=LEGAL | {4}),
        )
    many = {f"X-{i}": "x" * 100 for i in range(2_000)}
    yield "2,000 headers", Case(config("endpoint", "headers", value=many), codes=LEGAL | {4})
    for name, pem in {
        "empty": b"",
        "text": b"hello\n",
        "half": b"-----BEGIN CERTIFICATE-----\nAAAA\n",
        "binary": bytes(range(256)),
        "a key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    }.items():
        yield (
            f"ca_file: {name}",
            Case(
                config("endpoint", value={"ca_file": "ca.pem", "base_url": "https://localhost:9/v1"}),
                {"ca.pem": pem},
                codes=REFUSED,
            ),
        )
    for location in (
        "postgresql://",
        "postgresql:///",
        "postgresql://localhost:1/x?connect_timeout=1",
        "postgresql://localhost:x/db",
        "postgresql://[::1/db",
        "postgresql://a b/db",
        "postgresql://localhost/x?nothing=1",
        "postgresql://localhost/\0",
        "postgres://localhost:1/x?connect_timeout=1",
        "mysql://x",
        "sqlite:///x.db",
        "postgresql://localhost:1/x?application_name=%zz&connect_timeout=1",
        "postgresql+psycopg://localhost:1/x",
        "postgresql://localhost:99999/x",
        "redis://x",
        "http://x",
        "s3://b/ledger.db",
        "file:///x/y/z/ledger.db",
        ":memory:",
        "file::memory:",
    ):
        yield f"ledger: {location}", Case(config("ledger", value=location), codes=LEGAL)


def flags_of_commands() -> Iterator[Named]:
    """Command lines that are wrong."""
    for flag, values in {
        "--limit": ("x", "", "-1", "1.5", "inf", "9" * 30, "0", "1_0", "\uff11"),
        "--set": (
            "",
            "=",
            "a",
            "=1",
            ".",
            "a.=1",
            ".a=1",
            "..=1",
            "a..b=1",
            "limits=1",
            "limits.concurrency=",
            "steps=x",
            "steps.0=x",
            "steps.9.model=x",
            "steps.s=1",
            "steps.s.name=",
            "steps.-1.model=x",
            "steps.\uff11.model=x",
            "input=",
            "output=[",
            "output={",
            "input.csv=1",
            "x" * 100_000 + "=1",
            "limits.concurrency=" + "9" * 5_000,
            "limits.concurrency=!!python/x 1",
            "steps.s.prompt={{",
            "a" + ".b" * 5_000 + "=1",
            "input=*x",
            "endpoint.api_key=sk-1",
            "limits.concurrency=&a 1",
            "\n=1",
            "ledger=\x01",
            "output.path.x=1",
            "steps.s.schema.enum=[]",
            "limits.windows.0.seconds=1",
            "dedupe=null",
            "steps=null",
            "steps=[]",
            "input=null",
        ),
        "--partition": ("", "=", "a", "a=b", "x" * 10_000),
        "--input": (
            "",
            "nothing.csv",
            "x" * 300,
            "/dev/zero",
            "s3://",
            "http://x/y.csv",
            ".",
            "in.csv/",
            "*",
            "[",
            "**",
            "in.csv\n",
        ),
        "--output": (
            "",
            "x",
            "x" * 300 + ".csv",
            "/dev/null",
            "/dev/full",
            "/proc/x.csv",
            "s3://",
            "http://x/y.csv",
            "in.csv",
            "config.yaml",
            ".",
            "/",
            "in.csv/x.parquet",
            "\n.csv",
            " .csv",
            "out.csv.gz.zst",
            "out.parquet.gz",
        ),
        "--log-format": ("", "x"),
        "--lock": ("", "x"),
        "-q": ("x",),
    }.items():
        for value in values:
            codes = LEGAL
            yield f"{flag} {value!r:.30}", Case(BASE, args=(*RUN, flag, value), codes=codes)
    for args in (
        ("retry", "config.yaml", "--status", ""),
        ("retry", "config.yaml", "--status", ","),
        ("retry", "config.yaml", "--status", "ok"),
        ("retry", "config.yaml", "--status", "x" * 10_000),
        ("retry", "config.yaml"),
        ("retry", "config.yaml", "--in-doubt", "x"),
        ("retry", "config.yaml", "--in-doubt", "skip"),
        ("plan", "config.yaml", "--sample", "0"),
        ("plan", "config.yaml", "--sample", "x"),
        ("plan", "config.yaml", "--sample", "9" * 25),
        ("plan", "config.yaml", "--seed", "9" * 400),
        ("plan", "config.yaml", "--seed", "-1", "--sample", "1"),
        ("preview", "config.yaml", "-n", "0"),
        ("preview", "config.yaml", "-n", "9" * 25),
        ("status", "config.yaml"),
        ("status", "config.yaml", "--watch"),
        ("report", "config.yaml"),
        ("collect", "config.yaml", "-o", ""),
        ("collect", "config.yaml", "-o", "x.xls"),
        ("run", "config.yaml", "--confirm"),
        ("ledger",),
        ("ledger", "ls"),
        ("ledger", "ls", "nothing.db"),
        ("ledger", "ls", "in.csv"),
        ("ledger", "ls", "config.yaml", "--state", "x"),
        ("ledger", "export", "config.yaml", "-o", "x.parquet"),
        ("ledger", "export", "in.csv", "-o", "x.parquet"),
        ("ledger", "verify", "in.csv"),
        ("ledger", "prune", "config.yaml", "--older-than", "x"),
        ("ledger", "prune", "config.yaml", "--older-than", "9" * 400 + "d"),
        ("ledger", "prune", "config.yaml", "--older-than", "-1d"),
        ("ledger", "prune", "config.yaml", "--older-than", "\uff11d"),
        ("ledger", "prune", "config.yaml", "--older-than", "1 d"),
        ("ledger", "ls", "postgresql://localhost:1/x?connect_timeout=1"),
        ("ledger", "ls", "mysql://x"),
        ("ledger", "ls", "http://x"),
        ("models", "nothing.yaml"),
        ("models", "in.csv"),
        ("init", "in.csv"),
        ("init", "in.csv/x"),
        ("init", "/proc/x"),
        ("init", "x" * 300),
        ("completion", "x"),
        ("sandbox", "--port", "99999"),
        ("sandbox", "--port", "x"),
        ("sandbox", "--latency", "nan"),
        ("sandbox", "--latency", "inf"),
        ("sandbox", "--spread", "nan"),
        ("sandbox", "--rpm", "nan"),
        ("sandbox", "--rpm", "inf"),
        ("sandbox", "--rpm", "0"),
        ("sandbox", "--balance", "nan"),
        ("sandbox", "--fault", "x"),
        ("sandbox", "--fault", "reset=nan"),
        ("sandbox", "--fault", "rate_limited=2"),
        ("sandbox", "--fault", "rate_limited=nan"),
        ("sandbox", "--fault", "rate_limited=1:x"),
        ("sandbox", "--fault", "rate_limited=1:-1"),
        ("sandbox", "--fault", "rate_limited=1:" + "9" * 400),
        ("nothing",),
        ("",),
        ("\n",),
        ("run",),
        ("run", ""),
        ("run", "config.yaml", "config.yaml"),
        ("--x",),
        ("-",),
        ("run", "-"),
        ("run", "--"),
    ):
        codes = REFUSED if args[0] not in ("preview", "plan", "collect", "ledger", "status") else LEGAL
        if args in (("retry", "config.yaml"), ("retry", "config.yaml", "--in-doubt", "skip")):
            codes = frozenset({4})  # nothing was asked yet: `run` goes on from here
        yield " ".join(args)[:70], Case(BASE, args=args, codes=codes)
