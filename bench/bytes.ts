// The bytes that the benchmarks send, and the checksum that must come out at the other end.
//
// A period is a few MiB of whole messages, each with a sequence number of its own, that a producer
// sends again and again. A CRC-32 over every byte does not depend on where the stream is cut, costs
// a fiftieth of a copy, and with the count of bytes says that nothing is missing, twice, or in another
// order: the period is longer than all that can be under way at once.

import { crc32 } from "node:zlib";

import { type Dialect, encodeNative, KIND } from "../src/message.ts";

/** How a message looks: in a dialect of ours, or as NATS takes it (`PUB`) and hands it on (`MSG`). */
export type Wire = Dialect | "PUB" | "MSG";

/** The messages of one producer: their types take turns. */
export interface Traffic {
  readonly wire: Wire;
  /** Numbers of their types, each 0 to 9. */
  readonly types: readonly number[];
  readonly payloadBytes: number;
  /** How many messages differ; a multiple of the number of types. */
  readonly period: number;
}

/** Smallest payload that `payload` can make. */
const MIN_PAYLOAD_BYTES = 52;
const FIRST_SEQUENCE = 10_000_000;
const PERIOD_BYTES = 4 * 1024 * 1024;

/** A type name of 30 bytes, as long as those of existing programs. */
export function typeName(type: number): string {
  return `bench::vehicle::motion::Speed${type}`;
}

/** As many messages as make a period of about 4 MiB, and at least eight. */
export function periodFor(payloadBytes: number, types: number): number {
  return Math.max(8, Math.floor(PERIOD_BYTES / (payloadBytes + 38) / types) * types);
}

/** Length of one message on the wire. */
export function messageBytes(wire: Wire, payloadBytes: number): number {
  return encode(wire, 0, payloadBytes).length;
}

/** One period; with `only`, of the messages of that type alone, as its consumer gets them. */
export function buildPeriod(traffic: Traffic, only?: number): Buffer {
  const { wire, types, payloadBytes, period } = traffic;
  const templates = types.map((type) => encode(wire, type, payloadBytes));
  const [first] = templates as [Buffer];
  const digits = first.indexOf(String(FIRST_SEQUENCE));
  const wanted = only === undefined ? period : period / types.length;
  const bytes = Buffer.allocUnsafeSlow(wanted * first.length);
  let at = 0;
  for (let i = 0; i < period; i++) {
    const turn = i % types.length;
    if (only !== undefined && types[turn] !== only) continue;
    (templates[turn] as Buffer).copy(bytes, at);
    bytes.write(String(FIRST_SEQUENCE + i), at + digits, "latin1");
    at += first.length;
  }
  return bytes;
}

/** Checksum of the first `length` bytes of a period that is repeated. */
export function checksum(period: Buffer, length: number): number {
  let crc = 0;
  for (let left = length; left > 0; left -= period.length) {
    crc = crc32(left < period.length ? period.subarray(0, left) : period, crc);
  }
  return crc;
}

/** The subject under which NATS carries a type. */
export function subject(type: number): string {
  return typeName(type).replaceAll("::", ".");
}

/** A line of telemetry of exactly `length` bytes, as existing runtimes print it. */
export function telemetryLine(length: number): Buffer {
  const line = (body: string): string => {
    const entry = { time_unix_nano: 1_700_000_000_000_000, severity: "Info", body, attributes: [] };
    return `${JSON.stringify({ Telemetry: { thread_id: "1:1", message: { Log: entry } } })}\n`;
  };
  return Buffer.from(line("x".repeat(length - line("").length)));
}

/** What of such a line reaches the telemetry server: the inner object. */
export function telemetryObject(line: Buffer): Buffer {
  return Buffer.from(`${JSON.stringify(JSON.parse(line.toString()).Telemetry)}\n`);
}

function encode(wire: Wire, type: number, payloadBytes: number): Buffer {
  const name = typeName(type);
  const text = payload(payloadBytes);
  switch (wire) {
    case "native":
      return encodeNative(KIND.data, Buffer.from(name), Buffer.from(text));
    case "veecle":
      return Buffer.from(`${JSON.stringify({ Storable: { type_name: name, value: text } })}\n`);
    case "PUB":
      return Buffer.from(`PUB ${subject(type)} ${text.length}\r\n${text}\r\n`);
    case "MSG":
      return Buffer.from(`MSG ${subject(type)} 1 ${text.length}\r\n${text}\r\n`);
  }
}

/** JSON text of exactly `length` bytes: the same payload can travel in both dialects. */
function payload(length: number): string {
  const note = "abcdefghijklmnopqrstuvwxyz012345".repeat(Math.ceil(length / 32));
  const filler = note.slice(0, length - MIN_PAYLOAD_BYTES);
  return `{"sequence":${FIRST_SEQUENCE},"speed":[12.5,-3.25],"note":"${filler}"}`;
}
