// What a daemon holds, as far as a manifest can ask for it, and in what it differs from that.

import { formatQueueBound, type InstanceId } from "../model.ts";
import { formatDuration, type ProgramSettings } from "../settings.ts";
import { quote } from "./fault.ts";
import type { NamedLink, WantedInstance } from "./wanted.ts";

export interface Present {
  /** In the order in which they were added. */
  readonly instances: readonly PresentInstance[];
  readonly links: readonly PresentLink[];
}

export interface PresentInstance {
  readonly id: InstanceId;
  readonly settings: ProgramSettings;
  /** Of the program; of an uploaded one, of the daemon's copy. */
  readonly path: string;
  /** SHA-256 of an uploaded program, in hexadecimal; null: it is run from where it is. */
  readonly hash: string | null;
  /**
   * `running`: it has a process, or will have one again without being asked.
   * `finished`: it was started, and has ended by itself and well (code 0).
   * `stopped`: everything else; never started, stopped, or failed.
   */
  readonly state: "running" | "finished" | "stopped";
  /** The manifest that it belongs to; null: none, it was added by hand. */
  readonly owner: string | null;
}

export interface PresentLink extends NamedLink {
  readonly owner: string | null;
}

/** One thing that is not as it is wanted: `restart`, `no → always`. Holds no value of a variable. */
export interface Difference {
  /** As in the manifest. */
  readonly key: string;
  readonly text: string;
}

/** Tells the SHA-256 of the program at a path, in hexadecimal. */
export type HashFile = (path: string) => string;

/** The settings that a running process cannot take any more. Those of `env` belong to them. */
const FIXED_AT_START: ReadonlySet<string> = new Set([
  "path",
  "copy",
  "args",
  "cwd",
  "priority",
  "privileged",
]);

/** Whether a process has to end before it is run with what is wanted. */
export function needsRestart(differences: readonly Difference[]): boolean {
  return differences.some(({ key }) => FIXED_AT_START.has(key) || key.startsWith("env."));
}

/** In what an instance differs from what is wanted, but for its state and owner. */
export function instanceDifferences(
  present: PresentInstance,
  wanted: WantedInstance,
  hash: HashFile,
): Difference[] {
  const [before, after] = [present.settings, wanted.settings];
  return [
    ...programDifferences(present, wanted, hash),
    ...difference("args", list(before.args), list(after.args)),
    ...environmentDifferences(before.env, after.env),
    ...difference("cwd", before.cwd ?? "the daemon's", after.cwd ?? "the daemon's"),
    ...difference("restart", before.restart, after.restart),
    ...difference("restart_delay", before.restartDelayMs, after.restartDelayMs, formatDuration),
    ...difference("stop_signal", before.stopSignal, after.stopSignal),
    ...difference("stop_grace", before.stopGraceMs, after.stopGraceMs, formatDuration),
    ...difference("priority", before.priority ?? "the daemon's", after.priority ?? "the daemon's"),
    ...difference("privileged", before.privileged, after.privileged),
  ];
}

/** In what the settings of a link differ from what is wanted. */
export function linkDifferences(present: NamedLink, wanted: NamedLink): Difference[] {
  const [before, after] = [present.settings, wanted.settings];
  return [
    ...difference("queue", formatQueueBound(before), formatQueueBound(after)),
    ...difference("on_full", before.onFull, after.onFull),
  ];
}

export function ownerDifference(before: string | null, after: string): Difference[] {
  return difference("owner", before ?? "nobody", after);
}

function programDifferences(
  present: PresentInstance,
  wanted: WantedInstance,
  hash: HashFile,
): Difference[] {
  const isCopy = present.hash !== null;
  if (isCopy !== wanted.copy) return difference("copy", isCopy, wanted.copy);
  if (present.hash === null) return difference("path", present.path, wanted.path);
  return difference("path", present.hash, hash(wanted.path), (sum) => sum.slice(0, 12));
}

function environmentDifferences(
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>>,
): Difference[] {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].flatMap((name) => {
    const key = `env.${name}`;
    if (!Object.hasOwn(before, name)) return { key, text: "added" };
    if (!Object.hasOwn(after, name)) return { key, text: "removed" };
    return before[name] === after[name] ? [] : { key, text: "changed" };
  });
}

function difference<T extends string | number | boolean>(
  key: string,
  before: T,
  after: T,
  format: (value: T) => string = String,
): Difference[] {
  return before === after ? [] : [{ key, text: `${format(before)} → ${format(after)}` }];
}

function list(args: readonly string[]): string {
  return args.length === 0 ? "none" : args.map(quote).join(" ");
}
