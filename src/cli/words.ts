// States, times and sizes in words that a person understands at a glance. Pure.

import type { PeerInfo, RuntimeInfo } from "../protocol/info.ts";
import { shortName } from "./table.ts";

/** A length of time with its two largest units: `3.2 s`, `5 min 12 s`, `2 d 3 h`. */
export function formatDuration(ms: number): string {
  if (!Number.isFinite(ms)) return "an unknown time"; // a daemon of another release leaves it out
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 9_950) return `${(ms / 1_000).toFixed(1).replace(/\.0$/, "")} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const units: [size: number, name: string][] = [
    [86_400, "d"],
    [3_600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = units.findIndex(([size]) => seconds >= size);
  const [size, name] = units[first] as [number, string];
  const [nextSize, nextName] = units[first + 1] as [number, string];
  const rest = Math.floor((seconds % size) / nextSize);
  return `${Math.floor(seconds / size)} ${name}${rest === 0 ? "" : ` ${rest} ${nextName}`}`;
}

/** `512 B`, `3.4 KiB`, `12.0 MiB`. */
export function formatBytes(bytes: number): string {
  let amount = bytes;
  let unit = "B";
  for (const next of ["KiB", "MiB", "GiB"]) {
    if (amount < 1024) break;
    amount /= 1024;
    unit = next;
  }
  return `${unit === "B" ? Math.round(amount) : amount.toFixed(1)} ${unit}`;
}

/** The local time, with its date: `2026-11-23 13:06:28`. */
export function formatMoment(timeMs: number): string {
  const time = new Date(timeMs);
  const two = (number: number): string => String(number).padStart(2, "0");
  return (
    `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ` +
    `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`
  );
}

/** A time for programs: ISO 8601 in UTC. */
export function isoTime(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

/** `1 link`, `2 links`. */
export function count(number: number, one: string, many: string = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}

/** Names that are listed before the rest is only counted. */
const LISTED = 8;

/** Names of several in a sentence on a screen. */
export function listed(all: readonly { readonly name: string }[], columns?: number): string {
  const names = all.slice(0, LISTED).map(({ name }) => shortName(name, columns));
  const more = all.length - names.length;
  return `${names.join(", ")}${more === 0 ? "" : ` and ${more} more`}`;
}

/** How a process ended: `code 3`, `signal SIGSEGV`. */
export function exitWords(exit: NonNullable<RuntimeInfo["exit"]>): string {
  return "signal" in exit ? `signal ${exit.signal}` : `code ${exit.code}`;
}

/** What an instance is doing, and why it is not running. */
export function stateWords(runtime: RuntimeInfo, nowMs: number): string {
  const { state, exit, reason, due, restarts } = runtime;
  switch (state) {
    case "running":
      return runtime.held ? "running, not read from: a link is full" : "running";
    case "stopping":
      return "stopping";
    case "waiting": {
      const after = exit === null ? "" : ` after ${exitWords(exit)}`;
      const when = due === null ? "soon" : `in ${formatDuration(due - nowMs)}`;
      return `waiting${after}: restart ${restarts + 1} ${when}`;
    }
    case "failed":
      return `failed: ${reason ?? "too many restarts"}`;
    case "stopped":
      if (exit === null) return "stopped";
      if (isStopped(runtime)) {
        const isUsual = "code" in exit ? exit.code === 0 : exit.signal === runtime.stop_signal;
        return isUsual ? "stopped" : `stopped: ${exitWords(exit)}`;
      }
      return `exited: ${exitWords(exit)}`;
    default: // of a newer daemon
      return state;
  }
}

/** Whether a peer, or perhaps it, was said to be nobody, and nothing has come from it since. */
export function isNobody({ heard, refused, suspected }: PeerInfo): boolean {
  return Math.max(refused ?? 0, suspected ?? 0) > (heard ?? 0);
}

/** What is known of another orchestrator, of which UDP tells nothing by itself. */
export function peerWords(peer: PeerInfo, nowMs: number): string {
  const { heard, refused, suspected } = peer;
  const ago = (ms: number | null): string => `${formatDuration(nowMs - (ms ?? 0))} ago`;
  if (isNobody(peer)) {
    return (refused ?? 0) > (heard ?? 0)
      ? `its host said ${ago(refused)} that nobody listens there`
      : `${ago(suspected)} a host said that nobody listens, here or at another address`;
  }
  if (heard !== null) return `last heard from ${ago(heard)}`;
  return "never heard from, and UDP does not tell whether anybody listens";
}

/** Whether its end was asked for: by a stop, or by whoever sends the signal of one. */
function isStopped({ exit, exit_by_stop, stop_signal }: RuntimeInfo): boolean {
  return exit_by_stop || (exit !== null && "signal" in exit && exit.signal === stop_signal);
}

/** Whether it has failed, or has ended badly and nobody asked for that. */
export function isInTrouble(runtime: RuntimeInfo): boolean {
  const { state, exit } = runtime;
  if (state === "failed") return true;
  if (state !== "stopped" || exit === null) return false;
  return !isStopped(runtime) && !("code" in exit && exit.code === 0);
}

/** The colour of a state: alive, on its way, or in trouble. */
export function stateStyle(runtime: RuntimeInfo): string {
  const { state } = runtime;
  if (isInTrouble(runtime)) return "31";
  if (state === "running") return "32";
  if (state === "waiting" || state === "stopping") return "33";
  return "2";
}
