"""Delivery of records to other systems: webhooks, and subscribers at our own broker by NATS or MQTT.

`share` decides what goes to whom and keeps the cursors; the modules here carry one delivery and return its result.
`webhook` posts signed requests, and `egress` decides to which addresses we may connect; `brokered` publishes at our own
broker.
"""
