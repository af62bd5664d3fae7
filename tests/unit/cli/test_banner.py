import json
import re
from pathlib import Path

from kitemesh_cli.banner import GROUP, Ready, render
from kitemesh_cli.connections import masked

READY = Ready(
    url="http://127.0.0.1:8002",
    key="km_key",
    key_note="made",
    data=Path("/data"),
    access="127.0.0.1; requests without a key are served as tenant dev",
    model=GROUP,
    models=["scripted", "b", "c", "d", "e", "f", "g"],
    nats="nats://127.0.0.1:1",
    mongo="mongodb://127.0.0.1:2/",
    catalog=Path("/data/catalog.yaml"),
    health_ports=[("gateway", 3), ("model-runner", 4)],
    started_in_s=1.5,
)


def test_the_lines_to_paste_hold_the_key_and_valid_json() -> None:
    text = render(READY)
    bodies = [json.loads(body) for body in re.findall(r"-d '(.*?)'", text, re.DOTALL)]
    assert [body.get("stream", False) for body in bodies] == [False, True]
    assert all(body["model"] == GROUP for body in bodies)
    assert text.count("Authorization: Bearer km_key") == 2
    assert text.count("http://127.0.0.1:8002/v1/chat/completions") == 2
    assert "kitemesh conversation --data /data ID" in text


def test_the_banner_says_where_everything_is() -> None:
    text = render(READY)
    for place in (
        "http://127.0.0.1:3/healthz",
        "http://127.0.0.1:4/healthz",
        "nats://127.0.0.1:1",
        "/data/logs/",
        "/data/catalog.yaml",
    ):
        assert place in text
    assert "scripted, b, c, d, e and 2 more" in text


def test_credentials_in_urls_are_not_printed() -> None:
    assert masked("nats://u:p@a:1,nats://u:p@b:2") == "nats://***@a:1,nats://***@b:2"
    assert masked("mongodb://u:p@a:1,b:2/db?authSource=admin") == "mongodb://***@a:1,b:2/db"
    assert masked("nats://127.0.0.1:4222") == "nats://127.0.0.1:4222"
    assert masked("nats://u:p/w?x@a:1,tls://token@b:2") == "nats://***@a:1,tls://***@b:2"
