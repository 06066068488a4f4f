// R9: environments in which a daemon cannot start, each of which it says in one message.

import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Database } from "bun:sqlite";

import { type Ended, Launched, withFolder } from "../support/daemon.ts";
import { Disk, NO_DISK } from "../support/disk.ts";
import { until } from "../support/wire.ts";
import { demand, milliseconds, type Outcome } from "./outcome.ts";

const SOCKET = "veecle-orchestrator.socket";
const SANE_MS = 10_000;

/** How a daemon is started, and what it has to say. */
interface Start {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Without the right of root to read and write everything. */
  readonly isPlain?: true;
  readonly error: RegExp;
  readonly cause?: RegExp;
  readonly hint: RegExp;
  /** 2: what was typed is wrong; else 1. */
  readonly code?: 2;
  /** Undoes what is not in the folder. */
  after?(): unknown;
}

/** Makes an environment in an empty folder; a text says why it cannot be had here. */
type Prepare = (folder: string) => Promise<Start | string> | Start | string;

const BROKEN: Readonly<Record<string, Prepare>> = {
  "a state that nobody may make": (folder) => {
    mkdirSync(join(folder, "closed"), { mode: 0o500 });
    return {
      args: ["--state-dir", join(folder, "closed", "state")],
      isPlain: true,
      error: /Cannot make the folder \S+\/closed\/state$/,
      cause: /permission denied/,
      hint: /--state-dir/,
    };
  },
  "a state that others may enter": (folder) => {
    mkdirSync(join(folder, "open"));
    chmodSync(join(folder, "open"), 0o755);
    return {
      args: ["--state-dir", join(folder, "open")],
      error: /Cannot use the folder \S+\/open: others may use it \(mode 755\)/,
      hint: /--state-dir/,
    };
  },
  "a state that is a link": (folder) => {
    mkdirSync(join(folder, "there"), { mode: 0o700 });
    symlinkSync(join(folder, "there"), join(folder, "link"));
    return {
      args: ["--state-dir", join(folder, "link")],
      error: /Cannot use the folder \S+\/link: it is a symbolic link/,
      hint: /--state-dir/,
    };
  },
  "a state of somebody else": (folder) => {
    if (process.getuid?.() !== 0) return "only root can give a folder away";
    mkdirSync(join(folder, "foreign"), { mode: 0o700 });
    chownSync(join(folder, "foreign"), 1_234, 1_234);
    return {
      args: ["--state-dir", join(folder, "foreign")],
      error: /Cannot use the folder \S+\/foreign: it belongs to user 1234/,
      hint: /--state-dir/,
    };
  },
  "a state that is damaged": (folder) => {
    const state = join(folder, "state");
    mkdirSync(state, { mode: 0o700 });
    writeFileSync(join(state, "state.db"), "nonsense".repeat(1_000), { mode: 0o600 });
    return {
      args: ["--state-dir", state],
      error: /Cannot use the state in \S+: it is damaged .*it was left as it is/,
      hint: /move \S+state\.db\* away/,
    };
  },
  "a state of a newer version": async (folder) => {
    const state = await usedState(folder);
    const database = new Database(join(state, "state.db"));
    database.run("PRAGMA user_version = 1000");
    database.close();
    return {
      args: ["--state-dir", state],
      error: /Cannot use the state in \S+: it is of version 1000/,
      hint: /move \S+state\.db\* away/,
    };
  },
  "a state that another daemon uses": async (folder) => {
    const state = join(folder, "state");
    const other = join(folder, "other.socket");
    const daemon = start(folder, ["--control-socket", other, "--state-dir", state]);
    (await daemon.control(other)).wire.close();
    return {
      args: ["--state-dir", state],
      error: new RegExp(`another daemon uses it \\(pid ${daemon.process.pid}\\)`),
      hint: /--state-dir/,
      after: () => daemon.end("SIGTERM"),
    };
  },
  "a state on a disk that cannot be written": (folder) => {
    const disk = Disk.mount(2 ** 20);
    if (disk === undefined) return NO_DISK;
    disk.protect();
    return {
      args: ["--state-dir", join(disk.folder, "state")],
      env: { TMPDIR: folder },
      error: /Cannot make the folder \S+\/state$/,
      cause: /read-only file system/,
      hint: /--state-dir/,
      after: () => disk.unmount(),
    };
  },
  "a state on a disk that is full": (folder) => {
    const disk = Disk.mount(2 ** 20);
    if (disk === undefined) return NO_DISK;
    mkdirSync(join(disk.folder, "state"), { mode: 0o700 });
    disk.fill();
    return {
      args: ["--state-dir", join(disk.folder, "state")],
      env: { TMPDIR: folder },
      error: /Cannot use the state in \S+: the disk is full/,
      hint: /make room/,
      after: () => {
        const left = readdirSync(join(disk.folder, "state"));
        disk.unmount();
        demand(left.length === 0, "Nothing is left on the disk", left);
      },
    };
  },
  "a runtime folder that is not there": (folder) => ({
    env: { XDG_RUNTIME_DIR: join(folder, "nowhere") },
    error: /Cannot lock \S+\/nowhere\/\S+/,
    cause: /the folder \S+\/nowhere does not exist/,
    hint: /XDG_RUNTIME_DIR/,
  }),
  "a runtime folder that cannot be written": (folder) => {
    mkdirSync(join(folder, "closed"), { mode: 0o500 });
    return {
      env: { XDG_RUNTIME_DIR: join(folder, "closed") },
      isPlain: true,
      error: /Cannot lock \S+\/closed\/\S+/,
      cause: /closed is not writable\ncaused by: permission denied/,
      hint: /XDG_RUNTIME_DIR/,
    };
  },
  "a socket path that is too long": (folder) => ({
    args: ["--control-socket", join(folder, "x".repeat(108))],
    error: /Cannot use socket path "\S+": it is \d+ bytes long, and the system allows 107/,
    hint: /another path/,
    code: 2,
  }),
  "a socket path where a file stands": (folder) => {
    writeFileSync(join(folder, SOCKET), "precious");
    return {
      error: /Cannot listen on \S+: a file that is not a socket stands there/,
      hint: /--control-socket/,
    };
  },
  "a port that is taken": () => {
    const other = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    return {
      args: ["--control-socket", `127.0.0.1:${other.port}`],
      error: /Cannot listen on 127\.0\.0\.1:\d+$/,
      cause: /in use/,
      hint: /--control-socket/,
      after: () => other.stop(true),
    };
  },
  "a port for messages that is taken": async () => {
    const other = await Bun.udpSocket({ hostname: "127.0.0.1" });
    return {
      args: ["--ipc-socket", `127.0.0.1:${other.port}`],
      error: /Cannot listen on 127\.0\.0\.1:\d+ \(UDP\)/,
      cause: /in use/,
      hint: /--ipc-socket/,
      after: () => other.close(),
    };
  },
  "a log directive that is none": () => ({
    env: { VEECLE_ORCHESTRATOR_LOG: "router=loud" },
    error: /Cannot use log directive "router=loud": "loud" is not a level/,
    hint: /router=trace/,
    code: 2,
  }),
  "an option that is none": () => ({
    args: ["--frobnicate"],
    error: /--frobnicate/,
    hint: /--help/,
    code: 2,
  }),
  "a token that others may read": (folder) => {
    const file = join(folder, "token");
    writeFileSync(file, "a-token-of-some-length\n");
    chmodSync(file, 0o644);
    return {
      args: ["--control-socket", "127.0.0.1:0", "--token-file", file],
      error: /Cannot use the token file "\S+": others may read it/,
      hint: /chmod 600/,
    };
  },
  "a certificate that cannot be read": (folder) => {
    const file = join(folder, "cert.pem");
    writeFileSync(file, "-----BEGIN CERTIFICATE-----\n", { mode: 0o000 });
    return {
      args: ["--control-socket", "127.0.0.1:0", "--tls-cert", file, "--tls-key", file],
      isPlain: true,
      error: /Cannot use the file "\S+cert.pem"/,
      cause: /permission denied/,
      hint: /PEM/,
    };
  },
  "a certificate that is none": (folder) => {
    const file = join(folder, "cert.pem");
    writeFileSync(file, "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    return {
      args: ["--control-socket", "127.0.0.1:0", "--tls-cert", file, "--tls-key", file],
      error: /Cannot listen on 127\.0\.0\.1:0/,
      hint: /--tls-cert/,
    };
  },
};

export const BROKEN_ENVIRONMENTS: readonly string[] = Object.keys(BROKEN);

/** Root without its right to read and write everything; whoever is not root has none. */
const PLAIN = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];

function start(folder: string, args: readonly string[], env = {}, isPlain = false): Launched {
  const wrapper = isPlain && process.getuid?.() === 0 ? PLAIN : [];
  const all = { XDG_RUNTIME_DIR: folder, XDG_STATE_HOME: join(folder, "states"), ...env };
  return new Launched(args, all, wrapper);
}

/** The folder of a state that a daemon has left in order. */
async function usedState(folder: string): Promise<string> {
  const state = join(folder, "state");
  const daemon = start(folder, ["--state-dir", state]);
  (await daemon.control(join(folder, SOCKET))).wire.close();
  await daemon.end("SIGTERM");
  return state;
}

/** What stands in a folder: a line for each, with its mode and, of a file, what is in it. */
function inventory(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .toSorted()
    .map((name) => {
      const path = join(folder, name);
      const { mode, ino } = lstatSync(path);
      const isFile = lstatSync(path).isFile();
      const hash = isFile ? Bun.hash(readFileSync(path)) : "";
      return `${name} ${mode.toString(8)} ${ino} ${hash}`;
    });
}

/** Processes that were started with this folder in their environment or command line. */
function processesOf(folder: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const [env, words] = ["environ", "cmdline"].map((file) =>
          readFileSync(`/proc/${pid}/${file}`, "utf8"),
        );
        return `${env}${words}`.includes(`${folder}/`) || env?.includes(`=${folder}\0`) === true;
      } catch {
        return false; // it ended between two looks
      }
    });
}

/** Demands one message, of one error and what to try next. */
function checkMessage(wanted: Start, { code, stdout, stderr }: Ended): void {
  const isOne = /^error: .+\n(caused by: .+\n)*hint: .+\n$/.test(stderr);
  demand(isOne, "It is one error, its causes and one hint", stderr);
  const [error = "", ...rest] = stderr.split("\n");
  const isSaid =
    wanted.error.test(error) &&
    (wanted.cause === undefined || wanted.cause.test(rest.join("\n"))) &&
    wanted.hint.test(rest.at(-2) as string);
  demand(isSaid, "It says what is wrong, and what to try next", stderr);
  demand(code === (wanted.code ?? 1) && stdout === "", "It fails, and prints nothing else", code);
}

/**
 * A daemon is started in one of these environments: it says why it does not run, and ends.
 * @returns how long that took, or why it was not tried
 */
export async function refuse(name: string): Promise<number | string> {
  let result: number | string = "";
  await withFolder(async (folder) => {
    const wanted = await (BROKEN[name] as Prepare)(folder);
    if (typeof wanted === "string") {
      result = wanted;
      return;
    }
    try {
      if (wanted.isPlain === true && process.getuid?.() === 0 && Bun.which("setpriv") === null) {
        result = "there is no setpriv";
        return;
      }
      const [before, running] = [inventory(folder), processesOf(folder)];
      const { args = [], env, isPlain } = wanted;
      const keeps = args.includes("--state-dir") ? args : [...args, "--ephemeral"];
      const ended = await start(folder, keeps, env, isPlain).end();
      checkMessage(wanted, ended);
      const after = inventory(folder);
      demand(Bun.deepEquals(after, before), "Nothing is changed or left", { before, after });
      await until(
        () => `no process is left: ${processesOf(folder)}`,
        () => processesOf(folder).length <= running.length,
      );
      result = ended.ms;
    } finally {
      await wanted.after?.();
    }
  });
  return result;
}

/** All of them, one after the other. */
export async function brokenEnvironments(): Promise<Outcome> {
  const results: (number | string)[] = [];
  for (const name of BROKEN_ENVIRONMENTS) results.push(await refuse(name));
  const times = results.filter((result) => typeof result === "number");
  demand(times.length >= 12, "At least twelve can be had here", results);
  return {
    work: `${times.length} environments in which a daemon cannot start`,
    figures: [milliseconds("the slowest refused after", Math.max(...times), 1_000, SANE_MS)],
  };
}

/** What is no reason to end: a daemon serves, and says in its log what it goes without. */
interface Poor {
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly log: RegExp;
}

const POOR: Readonly<Record<string, Poor>> = {
  "a telemetry server whose name is unknown": {
    args: ["--telemetry-socket", "nowhere.invalid:4317", "--ephemeral"],
    log: /INFO .*listening/,
  },
  "neither HOME nor a folder for its state or its sockets": {
    args: [],
    env: { XDG_RUNTIME_DIR: "", XDG_STATE_HOME: "" },
    log: /WARN .*remembering nothing: the state has no place/,
  },
};

export const POOR_ENVIRONMENTS: readonly string[] = Object.keys(POOR);

/** A daemon serves in such an environment all the same; returns after how many ms. */
export async function serve(name: string): Promise<number> {
  let ms = 0;
  await withFolder(async (folder) => {
    const { args, log, env } = POOR[name] as Poor;
    const begin = performance.now();
    const daemon = start(folder, args, { TMPDIR: folder, ...env });
    const own = `veecle-orchestrator-${process.getuid?.()}`; // in the temporary folder
    const control = await daemon.control(join(folder, env === undefined ? "" : own, SOCKET));
    ms = performance.now() - begin;
    const id = crypto.randomUUID();
    await control.ok({ Add: { id, path: "/bin/true" } });
    await control.ok({ Start: id });
    control.wire.close();
    const { code, stderr } = await daemon.end("SIGTERM");
    demand(code === 0 && log.test(stderr), "It serves, and says what it goes without", stderr);
    demand(!/ERROR|defect/.test(stderr), "That is no error", stderr);
  });
  return ms;
}
