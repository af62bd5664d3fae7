"""Dashboards, alerts and recording rules of kitemesh, as data from which Grafana's and Prometheus's files are written.

Every target is scraped with the labels `service` and `instance`, and workers with `pool`. Dashboards and rules select
by them; no metric carries them itself.
"""
