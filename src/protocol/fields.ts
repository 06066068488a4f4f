// Fields of an untrusted JSON object → values of the domain, or a refusal that names the field.
//
// Pure. What these functions return is valid; `undefined` always means that the field is not there.

import { OrchestratorError } from "../errors.ts";
import { isObject } from "../json.ts";
import {
  type InstanceId,
  ON_FULL,
  type LinkSettings,
  parseInstanceId,
  parsePriority,
  parseQueueBound,
  type Priority,
} from "../model.ts";
import {
  argumentsFault,
  DEFAULT_SETTINGS,
  environmentFault,
  type InstanceSettings,
  nameFault,
  pathFault,
  RESTART_POLICIES,
  STOP_SIGNALS,
} from "../settings.ts";
import { MAX_STOP_GRACE_MS, RESTART_MAX_DELAY_MS } from "../limits.ts";

export type Fields = Readonly<Record<string, unknown>>;

/** A refusal of something that was sent. */
export function bad(reason: string, subject: string = "Cannot parse request"): OrchestratorError {
  return new OrchestratorError("bad_request", `${subject}: ${reason}`);
}

/** A value of the client's in a message: short, and on one line. */
export function quote(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 64));
  if (typeof value === "number") return String(value); // JSON has no word for 1e400
  return (JSON.stringify(value) ?? "nothing").slice(0, 64);
}

export function object(value: unknown, name: string): Fields {
  if (!isObject(value)) throw bad(`${name} takes an object with fields`);
  return value;
}

export function text(value: unknown, name: string): string {
  if (typeof value !== "string") {
    throw bad(`${name} is ${value === undefined ? "missing" : "not a string"}`);
  }
  return value;
}

export function id(value: unknown, name: string): InstanceId {
  const parsed = parseInstanceId(text(value, name));
  if (parsed === undefined) throw bad(`${name} is not a UUID: ${quote(value)}`);
  return parsed;
}

export function flag(value: unknown, name: string): boolean {
  if (typeof value !== "boolean") throw bad(`${name} is neither true nor false`);
  return value;
}

export function priority(value: unknown, name: string): Priority {
  const parsed = typeof value === "string" ? parsePriority(value) : undefined;
  if (parsed === undefined) {
    throw bad(`${name} is unknown: ${quote(value)}; it is high, normal or low`);
  }
  return parsed;
}

/** A list of instance ids. */
export function ids(value: unknown, name: string): readonly InstanceId[] {
  if (!Array.isArray(value)) throw bad(`${name} is not a list of ids`);
  return value.map((item, index) => id(item, `${name}[${index}]`));
}

/** What `read` makes of a field that is there; undefined if it is missing or null. */
export function optional<T>(
  fields: Fields,
  name: string,
  key: string,
  read: (value: unknown, name: string) => T,
): T | undefined {
  const value = fields[key];
  return value === undefined || value === null ? undefined : read(value, `${name}.${key}`);
}

export function hash(value: unknown, name: string): string {
  const isByte = (n: unknown): boolean =>
    Number.isInteger(n) && (n as number) >= 0 && (n as number) <= 255;
  if (!Array.isArray(value) || value.length !== 32 || !value.every(isByte)) {
    throw bad(`${name}.hash is not a list of 32 numbers from 0 to 255`);
  }
  return Buffer.from(value as number[]).toString("hex");
}

type Reader<T> = readonly [key: string, read: (value: unknown, name: string) => T];

/** Each setting of an instance with its key in requests. The compiler misses none. */
const SETTINGS: { readonly [K in keyof InstanceSettings]: Reader<InstanceSettings[K]> } = {
  name: [
    "name",
    (value, at) => {
      const name = text(value, at);
      return refuse(nameFault(name), `${at} cannot be used: `) ?? name;
    },
  ],
  args: [
    "args",
    (value, at) => {
      if (!Array.isArray(value) || !value.every((arg) => typeof arg === "string")) {
        throw bad(`${at} is not a list of strings`);
      }
      return refuse(argumentsFault(value), `${at} cannot be used: `) ?? value;
    },
  ],
  env: [
    "env",
    (value, at) => {
      if (!isObject(value) || !Object.values(value).every((text) => typeof text === "string")) {
        throw bad(`${at} is not an object of strings`);
      }
      const env = value as Readonly<Record<string, string>>;
      return refuse(environmentFault(env), `${at} cannot be used: `) ?? env;
    },
  ],
  cwd: [
    "cwd",
    (value, at) => {
      const folder = path(value, at);
      if (!folder.startsWith("/")) throw bad(`${at} is not an absolute path: ${quote(folder)}`);
      return folder;
    },
  ],
  restart: ["restart", (value, at) => oneOf(value, at, RESTART_POLICIES)],
  restartDelayMs: ["restart_delay_ms", (value, at) => upTo(value, at, RESTART_MAX_DELAY_MS)],
  stopSignal: ["stop_signal", (value, at) => oneOf(value, at, STOP_SIGNALS)],
  stopGraceMs: ["stop_grace_ms", (value, at) => upTo(value, at, MAX_STOP_GRACE_MS)],
  priority: ["priority", priority],
  privileged: ["privileged", flag],
  owner: ["owner", path],
};

/**
 * The settings of an instance that a request gives; a key that is missing or null gives none.
 * @throws `bad_request`
 */
export function decodeSettings(fields: Fields, name: string): Partial<InstanceSettings> {
  const settings: Record<string, unknown> = {};
  for (const [setting, [key, read]] of Object.entries(SETTINGS)) {
    const value = optional<unknown>(fields, name, key, read);
    if (value !== undefined) settings[setting] = value;
  }
  return settings as Partial<InstanceSettings>;
}

/**
 * The settings that a request changes: like `decodeSettings`, but null gives a setting its default.
 * @throws `bad_request`
 */
export function decodeChanges(fields: Fields, name: string): Partial<InstanceSettings> {
  const defaults = Object.entries(DEFAULT_SETTINGS).filter(([setting]) => {
    return fields[SETTINGS[setting as keyof InstanceSettings][0]] === null;
  });
  return { ...Object.fromEntries(defaults), ...decodeSettings(fields, name) };
}

/** The keys and values of a request that `decodeSettings` reads back. */
export function settingFields(settings: Partial<InstanceSettings>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(settings).map(([setting, value]) => [
      SETTINGS[setting as keyof InstanceSettings][0],
      value,
    ]),
  );
}

/**
 * The settings of a link that a request gives.
 * @throws `bad_request`
 */
export function decodeLinkSettings(fields: Fields): Partial<LinkSettings> {
  const { queue, on_full: onFull } = fields;
  const settings: { -readonly [K in keyof LinkSettings]?: LinkSettings[K] } = {};
  if (queue !== undefined && queue !== null) {
    const isText = typeof queue === "string" || typeof queue === "number";
    const bound = isText ? parseQueueBound(String(queue)) : undefined;
    if (bound === undefined) {
      throw bad(
        `Link.queue is neither a size up to 256MiB nor a number of messages: ${quote(queue)}`,
      );
    }
    Object.assign(settings, bound);
  }
  if (onFull !== undefined && onFull !== null) {
    settings.onFull = oneOf(onFull, "Link.on_full", ON_FULL);
  }
  const owner = optional(fields, "Link", "owner", path);
  if (owner !== undefined) settings.owner = owner;
  return settings;
}

export function path(value: unknown, name: string): string {
  const path = text(value, name);
  const fault = pathFault(path);
  if (fault !== undefined) throw bad(`${name} ${fault}`);
  return path;
}

function refuse(fault: string | undefined, subject: string): undefined {
  if (fault !== undefined) throw bad(`${subject}${fault}`);
}

/** One of the words that are allowed. */
export function oneOf<T extends string>(value: unknown, name: string, allowed: readonly T[]): T {
  const found = allowed.find((word) => word === value);
  if (found === undefined) {
    throw bad(`${name} is unknown: ${quote(value)}; it is ${allowed.join(", ")}`);
  }
  return found;
}

/** A whole number from 0 to `max`. */
export function upTo(value: unknown, name: string, max: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > max) {
    throw bad(`${name} is not a whole number from 0 to ${max}: ${quote(value)}`);
  }
  return value + 0; // of -0 too
}
