// What the daemon remembers, and how each of it is written as a row of a table.
//
// Every row ends with a checksum of all the values before it, so that a row in which anything has
// changed is noticed, even where SQLite finds nothing wrong. Decoding throws `state_unusable`,
// naming the table and the fault.

import { OrchestratorError } from "../errors.ts";
import { isObject } from "../json.ts";
import { MAX_EVENT_BYTES } from "../limits.ts";
import {
  type Exit,
  formatTarget,
  type InstanceId,
  type LinkKey,
  type LinkSettings,
  ON_FULL,
  parseInstanceId,
  parsePriority,
  parseTarget,
  type Priority,
} from "../model.ts";
import {
  DEFAULT_SETTINGS,
  type InstanceSettings,
  RESTART_POLICIES,
  STOP_SIGNALS,
} from "../settings.ts";

/** The process that ran last, by what no other process has: pids return. */
export interface StoredRun {
  readonly pid: number;
  readonly startTicks: number;
  readonly bootId: string;
  /** What it carries in its environment. */
  readonly mark: string;
}

/** Of an instance, what changes with every start and end. */
export interface StoredStatus {
  /** Meant to run. */
  readonly wanted: boolean;
  /** Why it is not tried again, or null. */
  readonly failed: string | null;
  /** Of the last start. */
  readonly priority: Priority | null;
  readonly run: StoredRun | null;
  readonly last: StoredEnd | null;
}

/** How the last process of an instance ended. */
export interface StoredEnd {
  readonly exit: Exit;
  /** It was asked for by a stop. */
  readonly wasStopped: boolean;
  /** How often it had been started again by then. */
  readonly restarts: number;
}

export interface StoredInstance extends StoredStatus {
  readonly id: InstanceId;
  readonly path: string;
  /** SHA-256 of the uploaded bytes in hexadecimal, or null. */
  readonly binary: string | null;
  readonly settings: InstanceSettings;
}

export interface StoredLink {
  readonly key: LinkKey;
  readonly settings: LinkSettings;
}

export interface StoredEvent {
  /** Greater than that of every event before. */
  readonly seq: number;
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly kind: string;
  readonly id: InstanceId | null;
  /** Of the instance, when it happened. */
  readonly name: string | null;
  readonly detail: Readonly<Record<string, unknown>>;
}

/** What SQLite holds in a column. */
export type Value = string | number | null;

/** The values of one row, the checksum last. */
export type Row = readonly Value[];

export type Table = "instances" | "runs" | "links" | "events" | "facts";

const SHA256 = /^[0-9a-f]{64}$/;

/** The row of these values. Text becomes well-formed: what is read must be what was summed up. */
export function encodeRow(table: Table, values: Row): Value[] {
  const row = values.map((value) => (typeof value === "string" ? value.toWellFormed() : value));
  row.push(checksum(table, row));
  return row;
}

/** The values of a row without its checksum. @throws if that is not right */
export function decodeRow(table: Table, row: Row): Row {
  const values = row.slice(0, -1);
  check(row.at(-1) === checksum(table, values), table, "does not have its checksum");
  return values;
}

function checksum(table: Table, values: Row): number {
  return Bun.hash.crc32(JSON.stringify([table, ...values]));
}

export function encodeInstance({ id, path, binary, settings }: StoredInstance): Row {
  return encodeRow("instances", [id, path, binary, JSON.stringify(settings)]);
}

/** @throws if the row is not whole */
export function decodeInstance(row: Row): Omit<StoredInstance, keyof StoredStatus> {
  const [id, path, binary, settings] = decodeRow("instances", row);
  const isWhole =
    isId(id) &&
    typeof path === "string" &&
    (binary === null || (typeof binary === "string" && SHA256.test(binary)));
  check(isWhole, "instances", "is not that of an instance");
  return { id, path, binary, settings: decodeSettings(parse("instances", settings)) };
}

/** Where the row of a status has its last end: before the checksum. */
const STATUS_LAST = 5;

export function encodeStatus(id: InstanceId, status: StoredStatus): Row {
  const { wanted, failed, priority, run, last } = status;
  const json = (value: unknown): string | null => (value === null ? null : JSON.stringify(value));
  const values = [id, wanted ? 1 : 0, failed, priority, json(run)];
  // As before there was `last`, the checksum is of what is there.
  const row = encodeRow("runs", last === null ? values : [...values, json(last)]);
  return last === null ? row.toSpliced(-1, 0, null) : row;
}

/** @throws if the row is not whole */
export function decodeStatus(row: Row): [id: InstanceId, status: StoredStatus] {
  const isLong = row[STATUS_LAST] !== null;
  const values = decodeRow("runs", isLong ? row : row.toSpliced(STATUS_LAST, 1));
  const [id, wanted, failed, priority, json, lastJson = null] = values;
  const run = json === null ? null : parse("runs", json);
  const last = lastJson === null ? null : parse("runs", lastJson);
  const isWhole =
    isId(id) &&
    (wanted === 0 || wanted === 1) &&
    isTextOrNull(failed) &&
    isPriorityOrNull(priority) &&
    (run === null || isRun(run)) &&
    (last === null || isEnd(last));
  check(isWhole, "runs", "is not the status of an instance");
  return [id, { wanted: wanted === 1, failed, priority, run, last }];
}

export function encodeLink({ key, settings }: StoredLink): Row {
  return encodeRow("links", [...encodeKey(key), JSON.stringify(settings)]);
}

/** The columns that tell a link from all others; a link from any instance has an empty source. */
export function encodeKey({ typeName, from, to }: LinkKey): Row {
  return [typeName, from ?? "", formatTarget(to)];
}

/** @throws if the row is not whole */
export function decodeLink(row: Row): StoredLink {
  const [typeName, from, to, json] = decodeRow("links", row);
  const target = typeof to === "string" ? parseTarget(to) : undefined;
  // JSON has no infinity: what has no bound is null.
  const { maxBytes, maxMessages, onFull, owner = null, ...rest } = parse("links", json);
  const known = ON_FULL.find((policy) => policy === onFull);
  const isWhole =
    typeof typeName === "string" &&
    (from === "" || isId(from)) &&
    target !== undefined &&
    typeof maxBytes === "number" &&
    (maxMessages === null || typeof maxMessages === "number") &&
    known !== undefined &&
    isTextOrNull(owner) &&
    Object.keys(rest).length === 0;
  check(isWhole, "links", "is not that of a link");
  return {
    key: { from: from === "" ? undefined : from, typeName, to: target },
    settings: {
      maxBytes,
      maxMessages: maxMessages ?? Number.POSITIVE_INFINITY,
      onFull: known,
      owner,
    },
  };
}

/** A detail that is too long is left out, and its length is told. */
export function encodeEvent({ seq, time, kind, id, name, detail }: StoredEvent): Row {
  const json = JSON.stringify(detail);
  const bytes = Buffer.byteLength(json);
  const kept = bytes <= MAX_EVENT_BYTES ? json : JSON.stringify({ omittedBytes: bytes });
  return encodeRow("events", [seq, Math.round(time), kind, id, name, kept]);
}

/** A row that is not whole becomes an event of the kind `unreadable`: history has no silent gaps. */
export function decodeEvent(row: Row): StoredEvent {
  try {
    const [seq, time, kind, id, name, detail] = decodeRow("events", row);
    const isWhole =
      typeof seq === "number" &&
      typeof time === "number" &&
      typeof kind === "string" &&
      isTextOrNull(id) &&
      isTextOrNull(name);
    check(isWhole, "events", "is not that of an event");
    return { seq, time, kind, id, name, detail: parse("events", detail) };
  } catch (error) {
    const [seq, time] = row;
    const detail = { reason: (error as Error).message };
    return {
      seq: Number(seq),
      time: Number(time),
      kind: "unreadable",
      id: null,
      name: null,
      detail,
    };
  }
}

/** Of each setting, what its value may be. A setting that is not stored has its default. */
const SETTINGS: { readonly [K in keyof InstanceSettings]: (value: unknown) => boolean } = {
  name: isText,
  args: (value) => Array.isArray(value) && value.every(isText),
  env: (value) => typeof value === "object" && value !== null && Object.values(value).every(isText),
  cwd: isTextOrNull,
  restart: (value) => RESTART_POLICIES.some((policy) => policy === value),
  restartDelayMs: Number.isFinite,
  stopSignal: (value) => STOP_SIGNALS.some((signal) => signal === value),
  stopGraceMs: Number.isFinite,
  priority: isPriorityOrNull,
  privileged: (value) => typeof value === "boolean",
  owner: isTextOrNull,
};

function decodeSettings(stored: Readonly<Record<string, unknown>>): InstanceSettings {
  const unknown = Object.keys(stored).find((key) => !Object.hasOwn(SETTINGS, key));
  check(unknown === undefined, "instances", `has a setting of a newer version, ${unknown}`);
  const settings: Readonly<Record<string, unknown>> = { ...DEFAULT_SETTINGS, ...stored };
  for (const [key, isFine] of Object.entries(SETTINGS)) {
    check(isFine(settings[key]), "instances", `has a bad value of the setting ${key}`);
  }
  return settings as unknown as InstanceSettings;
}

function parse(table: Table, json: Value | undefined): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(String(json));
  } catch {
    value = undefined;
  }
  check(isObject(value), table, "holds something else than a JSON object");
  return value;
}

function isRun(run: Readonly<Record<string, unknown>>): run is Record<string, unknown> & StoredRun {
  return (
    Number.isSafeInteger(run["pid"]) &&
    Number.isSafeInteger(run["startTicks"]) &&
    isText(run["bootId"]) &&
    isText(run["mark"])
  );
}

function isEnd(end: Readonly<Record<string, unknown>>): end is Record<string, unknown> & StoredEnd {
  const { exit, wasStopped, restarts } = end;
  if (!isObject(exit) || typeof wasStopped !== "boolean") return false;
  return (
    Number.isSafeInteger(restarts) && (Number.isSafeInteger(exit["code"]) || isText(exit["signal"]))
  );
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === "string";
}

function isPriorityOrNull(value: unknown): value is Priority | null {
  return value === null || (typeof value === "string" && parsePriority(value) !== undefined);
}

function isId(value: unknown): value is InstanceId {
  return typeof value === "string" && parseInstanceId(value) === value;
}

function check(condition: boolean, table: Table, fault: string): asserts condition {
  if (!condition) {
    throw new OrchestratorError("state_unusable", `a row of the table ${table} ${fault}`);
  }
}
