// MQTT.js publishes the numbers 0 to COUNT - 1: node mqttjs_client.js MODULES PORT LEVEL QOS COUNT
const [modules, port, level, qos, count] = process.argv.slice(2);
const mqtt = require(require.resolve("mqtt", { paths: [modules] }));
const client = mqtt.connect({
  host: "127.0.0.1",
  port: Number(port),
  protocolId: level === "3" ? "MQIsdp" : "MQTT",
  protocolVersion: Number(level),
  clientId: "d1",
  username: "d1",
  password: "right",
  reconnectPeriod: 0,
});
client.on("error", (error) => {
  console.error(String(error));
  process.exit(1);
});
client.on("connect", async () => {
  const sent = [];
  for (let number = 0; number < Number(count); number++) {
    sent.push(client.publishAsync("up/d1", String(number), { qos: Number(qos) }));
  }
  await Promise.all(sent);
  await client.endAsync();
});
