// What users write as values of options and arguments: what it means, which is refused and why, and
// what was probably meant. Pure.

import { parseAddress, parseTcpAddress } from "../address.ts";
import { MAX_QUERY_ITEMS } from "../limits.ts";
import {
  NICE,
  ON_FULL,
  parseInstanceId,
  parsePriority,
  parseQueueBound,
  parseTarget,
  typeNameFault,
} from "../model.ts";
import { nearest } from "../nearest.ts";
import {
  environmentFault,
  nameFault,
  parseDuration,
  pathFault,
  RESTART_POLICIES,
  STOP_SIGNALS,
} from "../settings.ts";
import { ASKED_BY_SCRIPTS, SHELLS, type ValueKind } from "./surface.ts";

/** States that can be waited for. */
export const CONDITIONS = ["running", "connected", "stopped", "exited", "failed"] as const;

export type Condition = (typeof CONDITIONS)[number] | `message:${string}`;

/** The type name of a condition `message:TYPE`, or undefined. */
export function messageType(condition: string): string | undefined {
  return condition.startsWith("message:") ? condition.slice("message:".length) : undefined;
}

/** How `export` can write a manifest. */
export const FORMATS = ["toml", "yaml", "json"] as const;

/** What `top` can be sorted by. */
export const SORT_COLUMNS = ["name", "cpu", "memory", "in", "out", "dropped", "restarts"] as const;

export type SortColumn = (typeof SORT_COLUMNS)[number];

/** A number of items that a query may ask for, or undefined. */
export function parseCount(text: string): number | undefined {
  const count = /^[0-9]{1,7}$/.test(text) ? Number(text) : undefined;
  return count !== undefined && count <= MAX_QUERY_ITEMS ? count : undefined;
}

/**
 * A time in ms since the epoch: a duration before `nowMs` (`5m`), a time of today (`13:06`), or a date
 * with or without a time, which is local unless it says otherwise. Undefined for anything else.
 */
export function parseTime(text: string, nowMs: number): number | undefined {
  const ago = parseDuration(text);
  if (ago !== undefined) return Math.max(0, nowMs - ago);
  const clock = /^([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?$/.exec(text);
  if (clock !== null) {
    const [, hours, minutes, seconds] = clock;
    return new Date(nowMs).setHours(Number(hours), Number(minutes), Number(seconds ?? 0), 0);
  }
  if (!/^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(Z|[+-][0-9:]+)?)?$/.test(text)) return undefined;
  // The 30th of February would be read as a day of March.
  const day = text.slice(0, 10);
  const midnight = new Date(`${day}T00:00Z`);
  if (Number.isNaN(midnight.getTime()) || !midnight.toISOString().startsWith(day)) return undefined;
  // A bare date would be read as UTC, unlike a date with a time.
  const time = Date.parse(text.length === 10 ? `${text}T00:00` : text.replace(" ", "T"));
  return Number.isNaN(time) || time < 0 ? undefined : time;
}

/** Says what is wrong with a regular expression, or returns undefined. */
export function patternFault(text: string): string | undefined {
  try {
    void new RegExp(text);
    return undefined;
  } catch (error) {
    return (error as Error).message.replace(/^Invalid regular expression: /, "");
  }
}

/** Those of values that are one of a few words. */
const WORDS: Readonly<Partial<Record<ValueKind, readonly string[]>>> = {
  priority: Object.keys(NICE),
  policy: ON_FULL,
  restart: RESTART_POLICIES,
  signal: STOP_SIGNALS,
  stream: ["stdout", "stderr"],
  column: SORT_COLUMNS,
  shell: SHELLS,
  condition: [...CONDITIONS, "message:TYPE"],
  format: FORMATS,
};

/**
 * Says what is wrong with a value, or returns undefined.
 * @throws `misuse` for an address, whose parser names the fault itself
 */
export function valueFault(kind: ValueKind, value: string): string | undefined {
  if (value === "") return "it is empty";
  switch (kind) {
    case "id":
      return parseInstanceId(value) === undefined ? "it is not a UUID" : undefined;
    case "priority":
      return parsePriority(value) === undefined ? "it is high, normal or low" : undefined;
    case "type":
      return typeNameFault(value);
    case "address":
      parseAddress(value);
      return undefined;
    case "target":
      if (parseTarget(value) !== undefined || !value.includes(":")) return undefined;
      return parseTcpAddress(value).port === 0 ? "the port is not 1 to 65535" : undefined;
    case "queue":
      return parseQueueBound(value) === undefined
        ? "it is neither a size up to 256MiB nor a number of messages"
        : undefined;
    case "name":
      return nameFault(value);
    case "variable": {
      const [key = ""] = value.split("=", 1);
      if (!value.includes("=")) return "it is not KEY=VALUE";
      return environmentFault({ [key]: value.slice(key.length + 1) });
    }
    case "duration":
      return parseDuration(value) === undefined
        ? "it is not a time such as 250ms, 5s or 2m"
        : undefined;
    case "time":
      return parseTime(value, 0) === undefined
        ? "it is neither a time ago such as 5m, nor a time such as 13:06 or 2026-11-23T13:06:28Z"
        : undefined;
    case "count":
      return parseCount(value) === undefined ? "it is not a number up to 1000000" : undefined;
    case "pattern":
      return patternFault(value);
    case "condition": {
      const typeName = messageType(value);
      return typeName === undefined ? noneOf(kind, value) : typeNameFault(typeName);
    }
    case "shell":
      return value === ASKED_BY_SCRIPTS ? undefined : noneOf(kind, value);
    case "policy":
    case "restart":
    case "signal":
    case "stream":
    case "column":
    case "format":
      return noneOf(kind, value);
    case "path":
    case "file":
    case "folder": {
      const fault = pathFault(value);
      return fault === undefined ? undefined : `it ${fault}`;
    }
    case "instance":
    case "text":
      return undefined;
  }
}

function noneOf(kind: ValueKind, value: string): string | undefined {
  const words = WORDS[kind] ?? [];
  return words.includes(value) ? undefined : `it is none of ${words.join(", ")}`;
}

/** Values that somebody may have meant who gave a wrong one. */
export function valuesLike(kind: ValueKind, value: string): string[] {
  if (kind === "duration") return /^[0-9]+$/.test(value) ? [`${value}s`] : [];
  const words = WORDS[kind] ?? [];
  const near = nearest(value, words);
  return near.length > 0 || kind !== "signal" ? near : nearest(`SIG${value}`, words);
}
