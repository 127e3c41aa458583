"""The summary of a demo that has just begun: a centre and a node."""

from __future__ import annotations

from sensegate.demo.summary import DemoTokens, MemberAddress, Summary

SUMMARY = Summary(
    centre=MemberAddress("44", "http://127.0.0.1:1", "mqtt://127.0.0.1:2", 31, 32),
    nodes=[MemberAddress("4401", "http://127.0.0.1:3", "mqtt://127.0.0.1:4", 41, 42)],
    tokens=DemoTokens("a", "s"),
    devices=[],
    feeds=["all"],
    console="http://127.0.0.1:1/",
    directory="somewhere",
    seed=1,
    delivered=80,
)
