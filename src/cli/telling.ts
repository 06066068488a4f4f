// Events in words: one line for each, and one for a crash with what follows it. Pure.

import type { EventInfo, RuntimeInfo } from "../protocol/info.ts";
import { isObject } from "../json.ts";
import { parseInstanceId } from "../model.ts";
import { shortName } from "./table.ts";
import { count, exitWords, formatBytes, formatDuration } from "./words.ts";

/** What is told about one moment. */
export interface Told {
  readonly time: number;
  readonly text: string;
  /** Whether somebody should look at it. */
  readonly isBad: boolean;
}

/** The name of an instance by its id, or what stands for it. */
export type NameOf = (id: string) => string;

type Detail = EventInfo["detail"];

/**
 * Events that arrived together, in words. What follows a crash stands on its line: `ping crashed:
 * signal SIGSEGV after 3.2 s; restart 2 in 200 ms`.
 */
export function tell(events: readonly EventInfo[], nameOf: NameOf): Told[] {
  const told: Told[] = [];
  const joined = new Set<EventInfo>();
  for (const [index, event] of events.entries()) {
    if (joined.has(event)) continue;
    let text = eventWords(event, nameOf);
    if (event.kind === "exited") {
      const next = events
        .slice(index + 1, index + 4)
        .find(({ id, kind }) => id === event.id && (kind === "restarting" || kind === "failed"));
      if (next !== undefined) {
        joined.add(next);
        text += `; ${consequence(next)}`;
      }
    }
    told.push({ time: event.time, text, isBad: isBad(event) });
  }
  return told;
}

/** What stands before an event on its line: the moment, and where a section is indented. */
const MOMENT_WIDTH = 25;

/** Events in words on a screen: where they do not fit, names leave room for what has happened. */
export function tellShort(
  events: readonly EventInfo[],
  nameOf: NameOf,
  columns: number | undefined,
): Told[] {
  const whole = tell(events, nameOf);
  if (columns === undefined) return whole;
  const fits = ({ text }: Told): boolean => MOMENT_WIDTH + Bun.stringWidth(text) <= columns;
  if (whole.every(fits)) return whole;
  const shortPart = (text: string): string => shortName(text, columns / 3); // of a link
  const shortened = events.map((event) => {
    const { name, detail } = event;
    const type = detail["type_name"];
    return {
      ...event,
      name: name === null ? null : shortName(name, columns),
      detail: typeof type === "string" ? { ...detail, type_name: shortPart(type) } : detail,
    };
  });
  const short = tell(shortened, (id) => shortPart(nameOf(id)));
  return whole.map((told, index) => (fits(told) ? told : (short[index] as Told)));
}

/** Pause in which a crash waits for what follows it: both are told by the daemon at once. */
const JOIN_MS = 30;

/** The batches of a stream, cut so that a crash and what follows it are in one of them. */
export async function* crashesWhole(
  batches: AsyncGenerator<readonly EventInfo[], void, void>,
): AsyncGenerator<readonly EventInfo[], void, void> {
  const ask = (): ReturnType<typeof batches.next> => {
    const answer = batches.next();
    answer.catch(() => {}); // awaited, but perhaps after a pause
    return answer;
  };
  let held: readonly EventInfo[] = [];
  let next = ask();
  try {
    for (;;) {
      const pause = held.length === 0 ? undefined : Bun.sleep(JOIN_MS);
      const result = await (pause === undefined ? next : Promise.race([next, pause]));
      if (typeof result === "object" && result.done !== true) {
        held = [...held, ...result.value];
        next = ask();
        const { kind, detail } = held.at(-1) as EventInfo;
        if (kind === "exited" && detail["stopping"] !== true) continue;
      }
      if (held.length > 0) yield held;
      held = [];
      if (typeof result === "object" && result.done === true) return;
    }
  } finally {
    await batches.return();
  }
}

function isBad({ kind, detail }: EventInfo): boolean {
  if (kind === "failed" || kind.endsWith("_failed") || kind === "dropped") return true;
  if (kind === "restarting") return true;
  return kind === "exited" && detail["stopping"] !== true && detail["code"] !== 0;
}

function eventWords(event: EventInfo, nameOf: NameOf): string {
  const { kind, detail, id } = event;
  const name = event.name ?? (id === null ? undefined : nameOf(id));
  const of = name ?? "daemon";
  switch (kind) {
    case "daemon_started":
      return `daemon started (pid ${detail["pid"]})${before(detail["before"])}`;
    case "daemon_stopped":
      return "daemon stopped";
    case "unreadable": // its row in the state is damaged, so it is not known whose it was
      return `an event cannot be read: ${text(detail["reason"])}`;
    case "added":
      return `${of} added: ${text(detail["path"])}`;
    case "uploaded":
      return `${of} uploaded: ${formatBytes(number(detail["bytes"]))}`;
    case "updated":
      return `${of} updated: ${changes(detail)}`;
    case "removed":
      return `${of} removed`;
    case "started":
      return detail["restart"] === undefined
        ? `${of} started (pid ${detail["pid"]})`
        : `${of} started again (pid ${detail["pid"]}, restart ${detail["restart"]})`;
    case "exited":
      return `${of} ${exited(detail)}`;
    case "restarting": // by itself, mostly as it could not be started again
      return `${of} ${consequence(event)}: ${text(detail["after"])}`;
    case "failed":
      return `${of} ${consequence(event)}`;
    case "stopping": {
      const kill = `killed in ${formatDuration(number(detail["grace_ms"]))} if it does not end`;
      return `${of} stopping: ${text(detail["signal"])}, ${kill}`;
    }
    case "start_failed":
      return `${of} could not be started: ${text(detail["reason"])}`;
    case "stop_failed":
      return `${of} could not be stopped; still there: ${text(detail["left"])}`;
    case "stopped": {
      const { killed } = detail;
      return `${of} stopped${killed === undefined ? "" : `; had to be killed: ${text(killed)}`}`;
    }
    case "swept":
      return `${of} left processes behind, which were killed`;
    case "linked":
    case "unlinked":
      return `${kind}: ${link(detail, nameOf)}`;
    case "dropped":
      return `${count(number(detail["count"]), "message")} dropped${mostOf(detail, nameOf)}`;
    default: // connected, disconnected, and what a newer daemon tells
      return `${of} ${kind.replaceAll("_", " ")}`;
  }
}

/** What the kernel has done for want of memory by the time a process was found killed, if anything. */
export function memoryKills(detail: Detail): string | undefined {
  const kills = number(detail["memory_kills"]);
  if (kills === 0) return undefined;
  const within = formatDuration(number(detail["memory_kills_ms"]));
  const killed = count(kills, "process", "processes");
  return `the kernel has killed ${killed} for want of memory in the ${within} before`;
}

/** How a process ended: by itself, badly, or because it was to be stopped. */
function exited(detail: Detail): string {
  const how = exitWords(detail as NonNullable<RuntimeInfo["exit"]>);
  const ran = `after ${formatDuration(number(detail["ran_ms"]))}`;
  if (detail["stopping"] === true) return `ended: ${how} ${ran}`;
  if (detail["code"] === 0) return `exited: ${how} ${ran}`;
  const kills = memoryKills(detail);
  return `crashed: ${how} ${ran}${kills === undefined ? "" : ` (${kills})`}`;
}

function consequence({ kind, detail }: EventInfo): string {
  if (kind === "failed") return `failed, no more restarts: ${text(detail["reason"])}`;
  return `restart ${detail["restart"]} in ${formatDuration(number(detail["in_ms"]))}`;
}

function before(value: unknown): string {
  const isUnusual = typeof value === "string" && value !== "none" && value !== "stopped";
  return isUnusual ? `; the one before: ${value}` : "";
}

function link(detail: Detail, nameOf: NameOf): string {
  const from = detail["from"];
  const source = typeof from === "string" ? nameOf(from) : "any";
  return `${source} → ${text(detail["type_name"])} → ${targetName(text(detail["to"]), nameOf)}`;
}

function mostOf(detail: Detail, nameOf: NameOf): string {
  const most = detail["most"];
  if (!isObject(most)) return "";
  const where = link(most, nameOf);
  return `, ${most["count"]} of them ${where} (${text(most["reason"]).replaceAll("_", " ")})`;
}

/** Where a link leads: the name of an instance, or an address. */
export function targetName(to: string, nameOf: NameOf): string {
  return parseInstanceId(to) === undefined ? to : nameOf(to);
}

function number(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "?";
}

/** The new path and the settings that an update has changed. */
function changes({ path, settings }: EventInfo["detail"]): string {
  const program = path === undefined ? [] : [`path ${text(path)}`];
  return [...program, ...(Array.isArray(settings) ? settings : [])].join(", ") || "nothing";
}
