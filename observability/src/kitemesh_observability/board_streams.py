"""The dashboard of open streams: what flows, what was resumed, repaired or cut."""

from typing import Final

from kitemesh_observability.board import Dashboard, Panel, Query, Row, mean, ours, rate

DASHBOARD: Final = Dashboard(
    "kitemesh-streams",
    "kitemesh / Streams",
    "SSE streams at the gateways, and what keeps them whole.",
    (
        Row(
            "Open",
            (
                Panel(
                    "Open streams",
                    "By gateway. Each costs its gateway memory (docs/sizing.md); gateways scale on it.",
                    "number",
                    (Query('sum by (instance) (kitemesh_streams_open{service="gateway"})', "{{instance}}"),),
                    stacked=True,
                ),
                Panel(
                    "Frames relayed",
                    "A second, to all clients.",
                    "a second",
                    (Query(rate('kitemesh_frames_relayed_total{service="gateway"}', "instance"), "{{instance}}"),),
                    stacked=True,
                ),
                Panel(
                    "Readers of feeds",
                    "Connected now.",
                    "number",
                    (Query('sum by (instance) (kitemesh_feed_readers{service="gateway"})', "{{instance}}"),),
                ),
                Panel(
                    "Time in the gateway",
                    "Mean time that turns spend in a gateway until accepted, and in its relay.",
                    "seconds",
                    (Query(mean("kitemesh_hop_seconds", "hop", '{hop=~"gateway|relay"}'), "{{hop}}"),),
                    width=12,
                ),
                Panel(
                    "Memory of gateways",
                    "Grows with open streams, and falls with them.",
                    "bytes",
                    (Query(ours('process_resident_memory_bytes{service="gateway"}'), "{{instance}}"),),
                    width=12,
                ),
            ),
        ),
        Row(
            "Kept whole",
            (
                Panel(
                    "Resumed",
                    "Durable streams attached to, a second. Many at once: gateways were restarted, or a proxy cuts "
                    "streams.",
                    "a second",
                    (Query(rate("kitemesh_stream_resumes_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Gaps",
                    "Gaps in durable streams, a second, by how they ended: NATS or a gateway is slow.",
                    "a second",
                    (Query(rate("kitemesh_stream_repairs_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    "Cut",
                    "Streams cut, a second: clients that do not read. See KitemeshStreamsCut.",
                    "a second",
                    (Query(rate("kitemesh_streams_cut_total", "reason"), "{{reason}}"),),
                ),
                Panel(
                    "Completed from the closing event",
                    "Classic turns whose live frames had a gap, in the last hour.",
                    "number",
                    (Query("sum(increase(kitemesh_frames_lost_total[1h]))"),),
                ),
                Panel(
                    "Not kept for replay",
                    "Frames and news that no stream acknowledged, in the last hour, by service. See "
                    "KitemeshPostsGivenUp.",
                    "number",
                    (Query("sum by (service) (increase(kitemesh_posts_given_up_total[1h]))", "{{service}}"),),
                ),
                Panel(
                    "News lost",
                    "News that feeds could not be told, in the last hour, by service.",
                    "number",
                    (Query("sum by (service) (increase(kitemesh_news_lost_total[1h]))", "{{service}}"),),
                ),
            ),
        ),
    ),
)
