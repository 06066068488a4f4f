// What users write as times, numbers and conditions, and what it means.

import { MAX_QUERY_ITEMS } from "../limits.ts";
import { parseDuration } from "../settings.ts";

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
