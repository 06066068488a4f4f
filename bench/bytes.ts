// The bytes that the benchmarks send, and the checksum that must come out at the other end.
//
// A period is a few MiB of whole messages, each with a sequence number of its own, that a producer
// sends again and again. A CRC-32 over every byte does not depend on where the stream is cut, costs
// a fiftieth of a copy, and with the count of bytes says that nothing is missing, twice, or in another
// order: the period is longer than all that can be under way at once.

import { crc32 } from "node:zlib";

import { type Dialect, encodeNative, KIND } from "../src/message.ts";

/** The messages of one producer: their types take turns. */
export interface Traffic {
  readonly dialect: Dialect;
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
export function messageBytes(dialect: Dialect, payloadBytes: number): number {
  return encode(dialect, 0, payloadBytes).length;
}

/** One period; with `only`, of the messages of that type alone, as its consumer gets them. */
export function buildPeriod(traffic: Traffic, only?: number): Buffer {
  const { dialect, types, payloadBytes, period } = traffic;
  const templates = types.map((type) => encode(dialect, type, payloadBytes));
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

function encode(dialect: Dialect, type: number, payloadBytes: number): Buffer {
  const name = typeName(type);
  const text = payload(payloadBytes);
  return dialect === "native"
    ? encodeNative(KIND.data, Buffer.from(name), Buffer.from(text))
    : Buffer.from(`${JSON.stringify({ Storable: { type_name: name, value: text } })}\n`);
}

/** JSON text of exactly `length` bytes: the same payload can travel in both dialects. */
function payload(length: number): string {
  const note = "abcdefghijklmnopqrstuvwxyz012345".repeat(Math.ceil(length / 32));
  const filler = note.slice(0, length - MIN_PAYLOAD_BYTES);
  return `{"sequence":${FIRST_SEQUENCE},"speed":[12.5,-3.25],"note":"${filler}"}`;
}
