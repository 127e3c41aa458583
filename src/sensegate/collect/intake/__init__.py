"""Batches of device messages on stream MQTT_MESSAGES: their form, their numbers, and the source that reads them."""
