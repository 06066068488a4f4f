// The settings of an instance, as one value: what is run, how, and what happens when it ends.
//
// Knows the rules of each setting in words that users meet; knows no wire format and no process.

import {
  MAX_ARGUMENTS_BYTES,
  MAX_ENVIRONMENT_BYTES,
  MAX_NAME_LENGTH,
  MAX_PATH_BYTES,
  RESTART_DELAY_MS,
  STOP_GRACE_MS,
} from "./limits.ts";
import { parseInstanceId, type Priority } from "./model.ts";

/** When the program is started again after it has ended by itself. */
export type RestartPolicy = "no" | "on-failure" | "always";

export const RESTART_POLICIES: readonly RestartPolicy[] = ["no", "on-failure", "always"];

/** Signals that may ask a program to stop. SIGKILL is what follows if it does not. */
export const STOP_SIGNALS = [
  "SIGINT",
  "SIGTERM",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
  "SIGKILL",
] as const;

export type StopSignal = (typeof STOP_SIGNALS)[number];

/** How a program is run. Plain data: it goes through JSON unchanged. */
export interface ProgramSettings {
  /** Unique; what users call it. */
  readonly name: string;
  readonly args: readonly string[];
  /** Added to what every instance inherits, and stronger than that. */
  readonly env: Readonly<Record<string, string>>;
  /** Absolute; null: the daemon's own working folder. */
  readonly cwd: string | null;
  readonly restart: RestartPolicy;
  /** Pause before the first restart; it doubles with every further one. */
  readonly restartDelayMs: number;
  readonly stopSignal: StopSignal;
  /** From the stop signal to SIGKILL. */
  readonly stopGraceMs: number;
  /** Of a start that names none; null: the daemon's own. */
  readonly priority: Priority | null;
  readonly privileged: boolean;
}

/** What is kept with an instance. */
export interface InstanceSettings extends ProgramSettings {
  /** The manifest that it was made from, if any. */
  readonly owner: string | null;
}

/** What an instance is run with when nothing is said; its name is given by whoever adds it. */
export const DEFAULT_PROGRAM: Omit<ProgramSettings, "name"> = {
  args: [],
  env: {},
  cwd: null,
  restart: "no",
  restartDelayMs: RESTART_DELAY_MS,
  stopSignal: "SIGINT",
  stopGraceMs: STOP_GRACE_MS,
  priority: null,
  privileged: false,
};

export const DEFAULT_SETTINGS: Omit<InstanceSettings, "name"> = { ...DEFAULT_PROGRAM, owner: null };

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** Says what is wrong with a name, or returns undefined. */
export function nameFault(name: string): string | undefined {
  if (name === "") return "it is empty";
  if (name.length > MAX_NAME_LENGTH) return `it is longer than ${MAX_NAME_LENGTH} characters`;
  if (!NAME.test(name)) {
    return "it may hold letters, digits, dots, hyphens and underscores, and begins with a letter or digit";
  }
  if (parseInstanceId(name) !== undefined) return "it looks like an id";
  return undefined;
}

/** A name that is free: that of the file, cut to what a name may hold, then with `-2`, `-3`, … */
export function proposeName(path: string, taken: ReadonlySet<string>): string {
  const file = path.slice(path.lastIndexOf("/") + 1);
  const cleaned = file.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  const base = cleaned.slice(0, MAX_NAME_LENGTH - 5);
  const stem = base === "" || parseInstanceId(base) !== undefined ? "instance" : base;
  if (!taken.has(stem)) return stem;
  for (let number = 2; ; number++) {
    const name = `${stem}-${number}`;
    if (!taken.has(name)) return name;
  }
}

/** Says what is wrong with arguments, or returns undefined. */
export function argumentsFault(args: readonly string[]): string | undefined {
  const bytes = args.reduce((sum, arg) => sum + Buffer.byteLength(arg) + 1, 0);
  if (bytes > MAX_ARGUMENTS_BYTES) {
    return `they are ${bytes} bytes long, more than ${MAX_ARGUMENTS_BYTES}`;
  }
  const index = args.findIndex((arg) => textFault(arg) !== undefined);
  return index < 0 ? undefined : `number ${index + 1} ${textFault(args[index] as string)}`;
}

/** Variables that the orchestrator sets itself. */
const RESERVED =
  /^(VEECLE_IPC_SOCKET|VEECLE_RUNTIME_ID|VEECLE_RUNTIME_RUN|VEECLE_ORCHESTRATOR_.*|VEECLE_TELEMETRY_SOCKET)$/;

/** Says what is wrong with an environment, or returns undefined. Never repeats a value: it may be secret. */
export function environmentFault(env: Readonly<Record<string, string>>): string | undefined {
  let bytes = 0;
  for (const [key, value] of Object.entries(env)) {
    const named = JSON.stringify(key.slice(0, 64));
    if (!/^[A-Za-z_][A-Za-z0-9_.]*$/.test(key)) return `${named} is not the name of a variable`;
    if (RESERVED.test(key)) return `${named} is set by the orchestrator itself`;
    const fault = textFault(value);
    if (fault !== undefined) return `the value of ${named} ${fault}`;
    bytes += key.length + Buffer.byteLength(value) + 2;
  }
  return bytes > MAX_ENVIRONMENT_BYTES
    ? `it is ${bytes} bytes long, more than ${MAX_ENVIRONMENT_BYTES}`
    : undefined;
}

/** Says what is wrong with a path ("is empty"), or returns undefined. */
export function pathFault(path: string): string | undefined {
  if (path === "") return "is empty";
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) return `is longer than ${MAX_PATH_BYTES} bytes`;
  return textFault(path);
}

function textFault(text: string): string | undefined {
  if (text.includes("\0")) return "contains a NUL character";
  return text.isWellFormed() ? undefined : "contains an unpaired surrogate";
}

const DURATION = /^([0-9]+(?:\.[0-9]{1,3})?)(ms|s|m|h|d)$/;
const DURATION_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/**
 * Reads a duration (`250ms`, `5s`, `1.5m`, `2h`, `1d`) in milliseconds, or returns undefined. However
 * long it is: its user has a bound, and says so.
 */
export function parseDuration(text: string): number | undefined {
  const match = DURATION.exec(text);
  if (match === null) return undefined;
  return Math.round(Number(match[1]) * (DURATION_MS[match[2] as string] as number));
}

/** The spelling of a duration that `parseDuration` reads back: whole, in the largest unit. */
export function formatDuration(ms: number): string {
  const unit = ["d", "h", "m", "s"].find((name) => ms % (DURATION_MS[name] as number) === 0);
  return ms === 0 || unit === undefined
    ? `${ms}ms`
    : `${ms / (DURATION_MS[unit] as number)}${unit}`;
}
