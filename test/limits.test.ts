// Every limit of limits.ts: held at limit - 1, limit and limit + 1 by a row here, held by the test of
// its owner, or none that a user or a peer could meet. A new limit has to be entered in one of the three.

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { parseAddress } from "../src/address.ts";
import { parseCommand } from "../src/cli/parse.ts";
import { Intake } from "../src/control/intake.ts";
import { parseDaemonOptions } from "../src/daemon/options.ts";
import { readSecret } from "../src/files/secret.ts";
import { parseJson } from "../src/json.ts";
import * as limits from "../src/limits.ts";
import { decodeRequest } from "../src/protocol.ts";
import { load } from "./support/manifest.ts";
import { frame } from "./support/wire.ts";

type Limit = keyof typeof limits;

const ID = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
const folder = mkdtempSync(join(tmpdir(), "vo-"));

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function add(settings: object): void {
  decodeRequest(JSON.stringify({ Add: { id: ID, path: "/x", privileged: false, ...settings } }));
}

function linkOfType(typeName: string): void {
  decodeRequest(JSON.stringify({ Link: { type_name: typeName, to: ID } }));
}

/** A client sends these bytes, which are one request without a meaning. */
async function send(bytes: string | Uint8Array): Promise<void> {
  const intake = new Intake({ pause() {}, resume() {}, onRequest() {}, after: () => () => {} });
  intake.push(Buffer.from(bytes));
  intake.end();
  const item = await intake.take();
  if (item?.kind === "fault" && item.isFatal) throw item.error;
}

function token(length: number): void {
  const path = join(folder, "token");
  writeFileSync(path, "x".repeat(length), { mode: 0o600 });
  readSecret(path);
}

function manifest(length: number): void {
  load({ "a.json": '{"name":"rig"}'.padEnd(length) });
}

/** Where a limit is met, what is done with so much of it, and what the refusal has to say. */
const HELD: readonly [
  limit: Limit,
  where: string,
  use: (size: number) => unknown,
  refused: RegExp,
][] = [
  ["MAX_REQUEST_BYTES", "a line", (size) => send(`"${"x".repeat(size - 2)}"\n`), /longer than 1048576 bytes/],
  ["MAX_REQUEST_BYTES", "a frame", (size) => send(frame(`"${"x".repeat(size - 2)}"`)), /more than 1048576/],
  ["MAX_JSON_DEPTH", "JSON", (size) => parseJson("[".repeat(size) + "]".repeat(size)), /deeper than 64 levels/],
  ["MAX_TYPE_NAME_BYTES", "a link", (size) => linkOfType("x".repeat(size)), /1025 bytes long, more than 1024/],
  ["MAX_TYPE_NAME_BYTES", "a link, in letters of two bytes", (size) => linkOfType("é".repeat(size / 2) + "x".repeat(size % 2)), /1025 bytes long, more than 1024/],
  ["MAX_NAME_LENGTH", "a name", (size) => add({ name: "x".repeat(size) }), /longer than 64 characters/],
  ["MAX_PATH_BYTES", "a program", (size) => add({ path: `/${"x".repeat(size - 1)}` }), /longer than 4095 bytes/],
  ["MAX_PATH_BYTES", "a working folder", (size) => add({ cwd: `/${"x".repeat(size - 1)}` }), /longer than 4095 bytes/],
  ["MAX_ARGUMENTS_BYTES", "arguments", (size) => add({ args: ["x".repeat(size - 1)] }), /65537 bytes long, more than 65536/],
  ["MAX_ENVIRONMENT_BYTES", "an environment", (size) => add({ env: { A: "x".repeat(size - 3) } }), /65537 bytes long, more than 65536/],
  ["RESTART_MAX_DELAY_MS", "a setting", (size) => add({ restart_delay_ms: size }), /30000/],
  ["MAX_STOP_GRACE_MS", "a setting", (size) => add({ stop_grace_ms: size }), /600000/],
  ["MAX_TOTAL_QUEUE_BYTES", "a link's queue", (size) => decodeRequest(JSON.stringify({ Link: { type_name: "T", to: ID, queue: `${size}B` } })), /256MiB/],
  ["MAX_QUERY_ITEMS", "a request for events", (size) => decodeRequest(JSON.stringify({ Events: { last: size } })), /1000000/],
  ["MAX_SOCKET_PATH_BYTES", "an address", (size) => parseAddress(`/${"x".repeat(size - 1)}`), /108 bytes long, and the system allows 107/],
  ["MAX_TOKEN_BYTES", "a token file", token, /16 to 4096 bytes/],
  ["MAX_DURATION_MS", "a command", (ms) => parseCommand(["stop", "a", "--timeout", `${ms}ms`]), /as --timeout: it is longer than 100000d/],
  ["MAX_DURATION_MS", "a time ago", (ms) => parseCommand(["logs", "--since", `${ms}ms`]), /as --since: it is longer than 100000d/],
  ["RESTART_MAX_DELAY_MS", "a command", (ms) => parseCommand(["runtime", "add", "p", "--restart-delay", `${ms}ms`]), /longer than 30s/],
  ["MAX_STOP_GRACE_MS", "a command", (ms) => parseCommand(["runtime", "add", "p", "--stop-grace", `${ms}ms`]), /longer than 10m/],
  ["MAX_PEERS", "options", (size) => parseDaemonOptions(["--ipc-socket=[::1]:0", ...Array(size).fill("--peer=10.0.0.1")], {}), /more than 1024/],
  ["MAX_OUTPUT_FILES", "options", (size) => parseDaemonOptions([`--output-files=${size}`], {}), /from 1 to 99/],
  ["MAX_MANIFEST_LENGTH", "a manifest", manifest, /longer than 1048576 characters/],
]; // prettier-ignore

/** The same from below: the limit is the least that is taken. */
const LEAST: typeof HELD = [
  ["MIN_TOKEN_LENGTH", "a token file", token, /16 to 4096 bytes/],
  ["MIN_OUTPUT_FILE_BYTES", "options", (size) => parseDaemonOptions([`--output-size=${size}B`], {}), /at least 1MiB/],
  ["MAX_FRAME_BYTES", "options", (size) => parseDaemonOptions([`--max-queue=${size}B`], {}), /at least 1MiB/],
]; // prettier-ignore

/** Limits that need more than a call to be met: the test of their owner, by a part of its title. */
const ELSEWHERE: Partial<Record<Limit, readonly [file: string, title: string]>> = {
  MAX_CONTROL_CONNECTIONS: ["e2e/control.test.ts", "256 connections are served"],
  MAX_ADDRESS_CONNECTIONS: ["e2e/access.test.ts", "64 connections from one other machine"],
  MAX_HANDSHAKES: ["e2e/tls.test.ts", "no more than 64 that have not shaken hands"],
  MAX_INSTANCES: ["e2e/limits.test.ts", "instances are registered"],
  MAX_LINKS: ["e2e/limits.test.ts", "links are there"],
  MAX_UPLOADS: ["store/binaries.test.ts", "holds the limit of uploads at once"],
  MAX_ADDRESS_UPLOADS: ["store/binaries.test.ts", "holds the limit of uploads from one machine"],
  MAX_UPLOAD_BYTES: ["protocol.test.ts", "holds the limit of an upload"],
  MAX_NATIVE_FRAME_BYTES: ["message.test.ts", "holds the limit of a frame"],
  MAX_VEECLE_LINE_BYTES: ["outbox.test.ts", "MAX_VEECLE_LINE_BYTES"],
  MAX_DATAGRAM_BYTES: ["e2e/peers.test.ts", "a datagram of 2048 bytes goes out, a longer one is dropped"],
  MAX_MANIFEST_FILES: ["manifest.test.ts", "MAX_MANIFEST_FILES + 1"],
}; // prettier-ignore

/** Limits that nobody is refused for, by what happens there instead. */
const REFUSES_NOBODY: Readonly<Record<string, readonly Limit[]>> = {
  "the peer is not read until there is room": ["MAX_PIPELINED_BYTES", "MAX_RESPONSE_BACKLOG_BYTES", "MAX_HELD_ANSWERS", "MAX_PENDING_CONTROL", "MAX_SPOOL_BYTES", "MAX_TOTAL_SPOOL_BYTES", "MIN_SPOOL_BYTES"],
  "something is dropped and counted": ["MAX_QUEUE_BYTES", "MAX_FOLLOWER_BYTES", "MAX_TELEMETRY_BYTES", "MAX_LOG_BACKLOG_BYTES", "MAX_LOG_CAUSES", "MAX_UNREAD_NOTICE_BYTES"],
  "something old is forgotten": ["TYPE_TABLE_SLOTS", "OUTPUT_FILE_BYTES", "OUTPUT_FILES", "MAX_EVENTS", "SKIPPED_EVENTS", "MAX_EVENT_AGE_MS"],
  "something is cut, and that is told": ["MAX_OUTPUT_LINE_BYTES", "MAX_LOG_TEXT", "MAX_CONTROL_ERROR", "MAX_EVENT_BYTES", "LAST_WORDS_BYTES", "MAX_SHOWN_LINE", "MAX_NAMED_PROCESSES"],
  "a silent or lost peer is let go": ["FIRST_REQUEST_MS", "HANDSHAKE_MS", "UPLOAD_IDLE_MS", "KEEP_ALIVE_MS", "LINGER_MS", "CONNECT_TIMEOUT_MS", "ANSWER_TIMEOUT_MS", "LEAST_ANSWER_MS"],
  "an instance has failed, or is killed": ["MAX_RESTARTS", "RESTART_WINDOW_MS", "STOP_GRACE_MS", "KILL_WAIT_MS"],
  "the daemon keeps descriptors, or disk, for what runs": ["RESERVED_DESCRIPTORS", "CONTROL_RESERVED_DESCRIPTORS", "DESCRIPTORS_SCARCE_MS", "MAX_STATE_BYTES", "STATE_RESERVE_BYTES", "STATE_LOG_BYTES", "MAX_STATE_LOG_BYTES"],
  "our own work is done in pieces of this size": ["MAX_PIN_RATIO", "GATHER_FRAME_BYTES", "GATHER_BLOCK_BYTES", "MAX_RECORD_BYTES", "RECORD_OVERHEAD_BYTES", "MAX_LINE_PIECES", "WIDE_PIPE_BYTES", "MAX_WIDE_PIPES", "HISTORY_BLOCK_BYTES", "UPLOAD_CHUNK_BYTES", "READ_TURN_MS", "SHARED_READ_TURN_MS", "SHARED_TURNS_MS", "MIN_SLICE_BYTES", "CONTROL_TURN_MS", "TABLE_SLICE_MS", "HASH_CHUNK_BYTES"],
  "our own work waits, or is tried again": ["DIALECT_WAIT_MS", "LOG_INTERVAL_MS", "STATE_LOOK_MS", "GROUP_POLL_MS", "LEFT_SOCKET_MS", "LEFT_SOCKET_POLL_MS", "SAME_KILLS_MS", "SPOOL_PATIENCE_MS", "SPOOL_RETRY_MS", "LAST_OUTPUT_MS", "RECONNECT_MIN_MS", "RECONNECT_MAX_MS", "FLUSH_MS", "NOTICE_INTERVAL_MS", "LOG_RETRY_MS", "RESTART_DELAY_MS", "RESTART_JITTER", "RESTART_RESET_MS", "SWEEP_WAIT_MS", "SWEEP_RETRY_MS", "STRAY_POLL_MS", "COMMIT_WAIT_MS", "COMMIT_RETRY_MS", "GUARD_LASTED_MS", "GUARD_RETRY_MS", "GUARD_RETRY_MAX_MS", "MAX_GUARD_BACKLOG_BYTES", "EVENT_PRUNE_COUNT", "EVENT_PRUNE_MS", "STATE_BUSY_MS", "FILE_CLOCK_MS", "SAME_KEY_MS", "CERTIFICATE_LOOK_MS", "REST_STARTS", "REST_MS", "REST_INTERVAL_MS"],
  "the system is looked at so far": ["YOUNG_PROCESS_MS", "MAX_TABLE_LOOKS", "MAX_EXEC_LOOKS", "HELD_NUMBER_MS", "MAX_FREEZE_LOOKS", "MAX_DESCENT", "MAX_REMEMBERED", "MAX_PARENTS_LOOK"],
}; // prettier-ignore

describe("a limit is held, and its refusal names it (R28):", () => {
  test.each(HELD)("%s, by %s", async (name, _, use, refused) => {
    const limit = limits[name];
    for (const size of [limit - 1, limit]) await use(size);
    expect(await outcome(use, limit + 1)).toMatch(refused);
  });

  test.each(LEAST)("%s, by %s", async (name, _, use, refused) => {
    const limit = limits[name];
    for (const size of [limit + 1, limit]) await use(size);
    expect(await outcome(use, limit - 1)).toMatch(refused);
  });
});

test("every limit is held here or elsewhere, or refuses nobody", () => {
  const elsewhere = Object.keys(ELSEWHERE);
  const entered = [
    ...new Set([...HELD, ...LEAST].map(([name]) => name as string)),
    ...elsewhere,
    ...Object.values(REFUSES_NOBODY).flat(),
  ];
  expect(entered.toSorted()).toEqual(Object.keys(limits).toSorted());
});

test.each(Object.entries(ELSEWHERE))("%s is held by the test %j", (_, [file, title]) => {
  expect(readFileSync(join(import.meta.dir, file), "utf8")).toContain(title);
});

async function outcome(use: (size: number) => unknown, size: number): Promise<string> {
  try {
    await use(size);
  } catch (error) {
    return (error as Error).message;
  }
  return "taken";
}
