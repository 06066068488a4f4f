// One instance, one link, one remote of a manifest: their keys, and what each of them may hold.

import { dirname, isAbsolute, resolve } from "node:path";

import { MAX_STOP_GRACE_MS, RESTART_MAX_DELAY_MS } from "../limits.ts";
import {
  DEFAULT_LINK_SETTINGS,
  type LinkSettings,
  ON_FULL,
  parseQueueBound,
  parseTarget,
  type Priority,
  typeNameFault,
} from "../model.ts";
import {
  argumentsFault,
  DEFAULT_PROGRAM,
  environmentFault,
  formatDuration,
  nameFault,
  parseDuration,
  pathFault,
  RESTART_POLICIES,
  STOP_SIGNALS,
} from "../settings.ts";
import { anyOf } from "./fault.ts";
import type { Section, TextFault } from "./section.ts";
import type { InstanceShape, LinkShape, Readiness, RemoteShape } from "./shape.ts";
import type { Remote, WantedInstance } from "./wanted.ts";
import { parseEnvironmentFile } from "./variables.ts";

const PRIORITIES: readonly Priority[] = ["high", "normal", "low"];

/** The keys of a shape, all of them: the compiler knows when one is missing. */
const keysOf = <T>(keys: { readonly [K in keyof Required<T>]: true }): string[] =>
  Object.keys(keys);

export const INSTANCE_KEYS: readonly string[] = keysOf<InstanceShape>({
  path: true,
  args: true,
  env: true,
  env_file: true,
  cwd: true,
  restart: true,
  restart_delay: true,
  stop_signal: true,
  stop_grace: true,
  priority: true,
  privileged: true,
  copy: true,
  start: true,
  after: true,
  ready: true,
});

export const LINK_KEYS: readonly string[] = keysOf<LinkShape>({
  from: true,
  type: true,
  to: true,
  queue: true,
  on_full: true,
});

const REMOTE_KEYS = keysOf<RemoteShape>({ address: true });

/** What other tools call our keys. */
const SYNONYMS: Readonly<Record<string, string>> = {
  arguments: "args",
  autostart: "start",
  binary: "path",
  command: "path",
  depends_on: "after",
  directory: "cwd",
  environment: "env",
  exec: "path",
  nice: "priority",
  requires: "after",
  restart_policy: "restart",
  signal: "stop_signal",
  stop_timeout: "stop_grace",
  working_dir: "cwd",
  working_directory: "cwd",
};

/** Reads an instance. What is wrong is reported, and the default stands for it. */
export function readInstance(section: Section, name: string): WantedInstance {
  section.expectKeys(INSTANCE_KEYS, SYNONYMS);
  section.require("path");
  const args = section.texts("args") ?? [];
  const fault = argumentsFault(args);
  if (fault !== undefined) section.refuse("args", fault);
  return {
    settings: {
      ...DEFAULT_PROGRAM,
      name,
      args,
      env: readEnvironment(section),
      cwd: readPath(section, "cwd") ?? null,
      restart: section.choice("restart", RESTART_POLICIES) ?? DEFAULT_PROGRAM.restart,
      restartDelayMs:
        readDuration(section, "restart_delay", RESTART_MAX_DELAY_MS) ??
        DEFAULT_PROGRAM.restartDelayMs,
      stopSignal: section.choice("stop_signal", STOP_SIGNALS) ?? DEFAULT_PROGRAM.stopSignal,
      stopGraceMs:
        readDuration(section, "stop_grace", MAX_STOP_GRACE_MS) ?? DEFAULT_PROGRAM.stopGraceMs,
      priority: section.choice("priority", PRIORITIES) ?? DEFAULT_PROGRAM.priority,
      privileged: section.flag("privileged") ?? DEFAULT_PROGRAM.privileged,
    },
    path: readPath(section, "path") ?? "",
    copy: section.flag("copy") ?? false,
    start: section.flag("start") ?? true,
    after: section.texts("after", nameTextFault) ?? [],
    ready: readReadiness(section) ?? "running",
  };
}

/** A path as it is if it is absolute; any other is in the folder of the file. */
function readPath(section: Section, key: string): string | undefined {
  const locate = (path: string): string =>
    isAbsolute(path) ? path : resolve(dirname(section.document.file), path);
  const path = section.text(key, (text) => pathFault(text) ?? pathFault(locate(text)));
  return path === undefined ? undefined : locate(path);
}

function readDuration(section: Section, key: string, maxMs: number): number | undefined {
  const value = section.value(key);
  if (typeof value === "number") {
    section.refuse(key, `${value} has no unit`, `write "${value}s" for seconds`);
    return undefined;
  }
  const text = section.text(key, (duration) => {
    const ms = parseDuration(duration);
    if (ms === undefined) return "is no duration: it is a number with ms, s, m, h or d, like 5s";
    return ms > maxMs ? `is longer than ${formatDuration(maxMs)}` : undefined;
  });
  return text === undefined ? undefined : parseDuration(text);
}

/** The variables of `env_file`, and stronger than those, of `env`. */
function readEnvironment(section: Section): Record<string, string> {
  const entries = new Map([...readEnvironmentFile(section), ...readEnvironmentTable(section)]);
  const environment = Object.fromEntries(entries);
  const isEachFine = [...entries].every(
    ([name, value]) => environmentFault({ [name]: value }) === undefined,
  );
  const fault = isEachFine ? environmentFault(environment) : undefined; // then it is the size
  if (fault !== undefined) section.refuse(section.has("env") ? "env" : "env_file", fault);
  return environment;
}

function readEnvironmentTable(section: Section): [string, string][] {
  const table = section.inner("env");
  return (table?.keys() ?? []).flatMap((name): [string, string][] => {
    const value = table?.text(name);
    if (value === undefined) return [];
    const fault = environmentFault({ [name]: value });
    if (fault !== undefined) table?.refuseKey(name, fault);
    return [[name, value]];
  });
}

function readEnvironmentFile(section: Section): [string, string][] {
  const file = readPath(section, "env_file");
  if (file === undefined || section.document.sources.isForRemoval === true) return [];
  const { faults: all } = section.document;
  const report = (line: number, path: string[], message: string): void => {
    all.push({ file, place: { line, column: 1 }, path, message, hint: undefined });
  };
  const text = section.fileText("env_file", file);
  if (text === undefined) return [];
  const { variables, faults } = parseEnvironmentFile(text);
  for (const { line, message } of faults) report(line, [], message);
  return [...variables].map(([name, { value, line }]): [string, string] => {
    const fault = environmentFault({ [name]: value });
    if (fault !== undefined) report(line, [], fault);
    return [name, value];
  });
}

function readReadiness(section: Section): Readiness | undefined {
  const value = section.value("ready");
  if (value === undefined || typeof value === "string") {
    return section.choice<"running" | "connected">("ready", ["running", "connected"]);
  }
  const table = section.inner("ready");
  if (table === undefined) return undefined;
  const known = ["output", "file", "port", "message"];
  table.expectKeys(known);
  const [key, ...more] = table.keys().filter((name) => known.includes(name));
  if (key === undefined || more.length > 0) {
    section.refuse("ready", `exactly one of ${anyOf(known)} is needed`);
    return undefined;
  }
  switch (key) {
    case "output": {
      const output = table.text(key, (text) => (text === "" ? "is empty" : undefined));
      return output === undefined ? undefined : { output };
    }
    case "file": {
      const file = readPath(table, key);
      return file === undefined ? undefined : { file };
    }
    case "port": {
      const port = table.textOrNumber(key, portFault);
      return port === undefined ? undefined : { port: Number(port) };
    }
    default: {
      const message = table.text(key, typeFault);
      return message === undefined ? undefined : { message };
    }
  }
}

/** Says what is wrong with a name, in words that follow it. */
export const nameTextFault: TextFault = (text) => {
  const fault = nameFault(text);
  return fault === undefined ? undefined : `is no name: ${fault}`;
};

const portFault: TextFault = (text) =>
  /^[0-9]{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535
    ? undefined
    : "is no port: it is 1 to 65535";

const typeFault: TextFault = (text) => {
  const fault = typeNameFault(text);
  return fault === undefined ? undefined : `is no type name: ${fault}`;
};

/** A link as it is written: its ends are words, which other files may declare. */
export interface WrittenLink {
  readonly from: string | undefined;
  /** undefined: it is missing or wrong, which is reported already; `to` likewise. */
  readonly typeName: string | undefined;
  readonly to: string | undefined;
  readonly settings: LinkSettings;
}

export function readLink(section: Section): WrittenLink {
  section.expectKeys(LINK_KEYS, { type_name: "type", target: "to", source: "from" });
  section.require("type");
  section.require("to");
  const from = section.text("from");
  const typeName = section.text("type", typeFault);
  const to = section.text("to");
  const queue = section.textOrNumber("queue", (text) =>
    parseQueueBound(text) === undefined
      ? "is neither a size up to 256MiB nor a number of messages"
      : undefined,
  );
  const onFull = section.choice("on_full", ON_FULL);
  const settings = {
    ...DEFAULT_LINK_SETTINGS,
    ...(queue === undefined ? {} : parseQueueBound(queue)),
    ...(onFull === undefined ? {} : { onFull }),
  };
  return { from, typeName, to, settings };
}

/** Reads the address of a remote. */
export function readRemote(section: Section): Remote | undefined {
  section.expectKeys(REMOTE_KEYS, { host: "address", url: "address" });
  section.require("address");
  const text = section.text("address", (address) =>
    remoteOf(address) === undefined
      ? "is no address: it is IP:PORT, like 192.168.1.5:2661"
      : undefined,
  );
  return text === undefined ? undefined : remoteOf(text);
}

/** Reads `IP:PORT`. */
export function remoteOf(text: string): Remote | undefined {
  const target = parseTarget(text);
  return target?.kind === "remote" ? target : undefined;
}
