// The documents that --json prints, key by key: `docs/cli.md` shows them, a test holds every command to
// them. Keys stay; new ones may come.
//
//   text number flag time any      time: ISO 8601 in UTC
//   [X]  a list   X|null  perhaps none   NAME  a document of this page   key?  may be missing

import type { CommandName } from "./surface.ts";

/** The keys of a document, each with the form of its value. */
export type Shape = Readonly<Record<string, string>>;

const OUTCOME: Shape = {
  id: "text",
  name: "text",
  changed: "flag",
  state: "text",
  pid: "number|null",
  exit: "EXIT|null",
};

const LINK: Shape = {
  type_name: "text",
  from: "text|null",
  to: "text",
  queue: "text",
  on_full: "text",
  owner: "text|null",
  routed: "number",
  delivered: "number",
  queued: "number",
  dropped: "any",
  "peer?": "PEER",
};

const INSTANCE: Shape = {
  id: "text",
  name: "text",
  state: "text",
  reason: "text|null",
  running: "flag",
  binary: "text",
  hash: "text|null",
  pid: "number|null",
  started: "time|null",
  due: "time|null",
  restarts: "number",
  exit: "EXIT|null",
  exit_by_stop: "flag",
  args: "[text]",
  env: "[text]",
  cwd: "text|null",
  restart: "text",
  restart_delay_ms: "number",
  stop_signal: "text",
  stop_grace_ms: "number",
  priority: "text|null",
  privileged: "flag",
  owner: "text|null",
  connected: "flag",
  dialect: "text|null",
  held: "flag",
  messages: "MESSAGES",
};

/** Documents that others hold. */
export const DOCUMENTS: Readonly<Record<string, Shape>> = {
  INSTANCE,
  STATUS: {
    ...INSTANCE,
    resources: "RESOURCES|null",
    links: "[FLOW]",
    events: "[EVENT]",
    output: "[LINE]",
  },
  OUTCOME,
  EXIT: { "code?": "number", "signal?": "text" },
  MESSAGES: { received: "number", unlinked: "number", refused: "number" },
  RESOURCES: {
    processes: "number",
    threads: "number",
    cpu_ms: "number",
    resident_bytes: "number",
    open_files: "number|null",
  },
  LINK,
  PEER: { heard: "time|null", refused: "time|null", suspected: "time|null" },
  FLOW: { ...LINK, per_second: "number" },
  EVENT: {
    seq: "number",
    time: "time",
    kind: "text",
    id: "text|null",
    name: "text|null",
    detail: "any",
  },
  LINE: { time: "time", id: "text", name: "text", stream: "text|null", line: "text" },
  CHANGE: { name: "text", change: "text", differences: "[DIFFERENCE]", "restart?": "flag" },
  DIFFERENCE: { key: "text", text: "text" },
  STEP: { do: "text", name: "text", outcome: "text", error: "text|null" },
  PLAN: {
    file: "text",
    owner: "text",
    same: "flag",
    instances: "[CHANGE]",
    links: "[CHANGE]",
    steps: "[STEP]",
  },
  WHY: { id: "text", name: "text", state: "text", why: "text", next: "text|null" },
  LOAD: {
    id: "text",
    name: "text",
    state: "text",
    cpu_percent: "number|null",
    resident_bytes: "number|null",
    in_per_second: "number|null",
    out_per_second: "number|null",
    queued: "number",
    dropped: "number",
    restarts: "number",
  },
  FINDING: { level: "text", subject: "text", text: "text", mend: "text|null" },
  WORD: { word: "text", text: "text" },
  ERROR: {
    code: "text",
    message: "text",
    causes: "[text]",
    hint: "text|null",
    exit: "number",
  },
};

const OUTCOMES: Shape = { instances: "[OUTCOME]" };
const LINK_KEY: Shape = { type_name: "text", from: "text|null", to: "text" };

/** What each command prints: one document, or one a line of what it streams. */
export const PRINTS: Readonly<Record<CommandName, Shape | string>> = {
  ps: { instances: "[INSTANCE]" },
  "runtime list": { instances: "[INSTANCE]" },
  status: { instances: "[STATUS]" },
  why: { instances: "[WHY]" },
  top: { instances: "[LOAD]" },
  start: OUTCOMES,
  stop: OUTCOMES,
  restart: OUTCOMES,
  wait: OUTCOMES,
  logs: "LINE",
  events: "EVENT",
  up: "PLAN",
  plan: "PLAN",
  down: "PLAN",
  export: "any",
  "runtime add": { id: "text", name: "text|null", bytes: "number|null", started: "flag" },
  "runtime start": { id: "text" },
  "runtime stop": { id: "text" },
  "runtime remove": { id: "text" },
  "runtime stdout": { line: "text" },
  "link add": LINK_KEY,
  "link remove": LINK_KEY,
  "link list": { links: "[LINK]" },
  clear: { cleared: "flag" },
  doctor: { findings: "[FINDING]" },
  completion: { words: "[WORD]", files: "flag" },
  "token new": { file: "text" },
  version: { daemon: "text", client: "text" },
};
