// A command line as a function: words in, what it printed and its exit code out.

import { main } from "../../src/cli.ts";
import type { Terminal } from "../../src/cli/terminal.ts";
import { DEADLINES, type Deadlines } from "../../src/client.ts";
import { FakeDaemon } from "./fake-daemon.ts";

export const A = "0195fc7b-33e6-70e3-bee1-ac515185fac7";
export const B = "0195fc7b-4444-70e3-bee1-ac515185fa00";

type Plain = Readonly<Record<string, unknown>>;

export const STOPPED: Plain = {
  name: "pong",
  running: false,
  binary: "/opt/ping",
  privileged: false,
  state: "stopped",
  pid: null,
  connected: false,
  dialect: null,
  held: false,
  exit: null,
  messages: { received: 0, unlinked: 0, refused: 0 },
};
const ROUTE: Plain = {
  type_name: "a::Ping",
  from: null,
  to: B,
  queue: "4MiB",
  on_full: "drop-oldest",
  routed: 1,
  delivered: 1,
  queued: 0,
  dropped: {},
};
export const INFO: Plain = {
  runtimes: {
    [A]: { ...STOPPED, name: "ping", running: true, state: "running", pid: 123 },
    [B]: STOPPED,
  },
  links: { "a::Ping": [B] },
  routes: [ROUTE],
  telemetry: null,
  pid: 1,
};

/** A daemon that knows two instances, accepts everything, and remembers what it was asked. */
export function friendly(requests: unknown[]): FakeDaemon {
  return new FakeDaemon((body, connection) => {
    const request: unknown = JSON.parse(String(body));
    requests.push(request);
    if (request === "Version") connection.ok("0.1.0");
    else connection.ok(request === "Info" ? INFO : null);
  });
}

export interface Ran {
  code: number;
  out: string;
  err: string;
}

export interface Setting {
  readonly deadlines?: Partial<Deadlines>;
  /** What a person answers; undefined: there is nobody to ask. */
  readonly answer?: string;
  readonly interrupted?: Promise<void>;
  readonly env?: Record<string, string>;
  readonly folder?: string;
  readonly screen?: boolean;
  readonly columns?: number;
  readonly now?: number;
  readonly write?: (text: string) => void;
  readonly outputClosed?: Promise<void>;
}

/** Runs a command line at a terminal that is none. */
export async function run(argv: readonly string[], setting: Setting = {}): Promise<Ran> {
  const ran: Ran = { code: -1, out: "", err: "" };
  const never = new Promise<never>(() => {});
  const terminal: Terminal = {
    env: setting.env ?? {},
    folder: setting.folder ?? "/home/user",
    outputIsScreen: setting.screen ?? false,
    reportIsScreen: setting.screen ?? false,
    columns: setting.columns,
    reportColumns: setting.columns,
    reportRows: setting.screen === true ? 24 : undefined,
    now: () => setting.now ?? 1_000_000,
    canAsk: setting.answer !== undefined,
    deadlines: { ...DEADLINES, ...setting.deadlines },
    interrupted: setting.interrupted ?? never,
    async write(data) {
      const text = typeof data === "string" ? data : Buffer.from(data).toString("latin1");
      setting.write?.(text);
      ran.out += text;
    },
    report: (text) => void (ran.err += text),
    async ask(question) {
      ran.err += question;
      return setting.answer ?? "";
    },
    async fullScreen() {
      throw new Error("there is no screen");
    },
    outputClosed: () => setting.outputClosed ?? never,
    release: () => {},
  };
  ran.code = await main(argv, terminal);
  return ran;
}
