// Process managers as the bench drives them, each by the tools that its users have; and the programs
// that they are given.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { ControlClient } from "../src/client.ts";
import { newInstanceId } from "../src/model.ts";
import { buildDaemon } from "./daemon.ts";

const PATH = process.env["PATH"] ?? "/usr/bin:/bin";
const ENV = { PATH };

/** Grace of every stop, where a manager has one. */
export const GRACE_S = 2;

const IDLE = 'exec tail -fn0 "$0" >/dev/null';

/** The programs of one step, in a folder of their own. */
export class Crew {
  readonly folder: string;
  readonly #programs: string;

  constructor(folder: string) {
    this.folder = folder;
    this.#programs = join(folder, "p");
    mkdirSync(this.#programs, { recursive: true, mode: 0o700 });
  }

  path(name: string): string {
    return join(this.#programs, name);
  }

  /** A program that waits to be ended; `tail` would end by itself with whoever reads its output. */
  idler(name: string): string {
    return this.#write(name, IDLE);
  }

  /** A program that ignores signals, and so does its child in a session of its own. */
  forker(name: string): string {
    const loop = "trap '' INT TERM HUP\nwhile :; do sleep 1; done";
    this.#write("leaf", loop);
    return this.#write(name, `setsid "${this.path("leaf")}" &\n${loop}`);
  }

  /** A program that prints lines of 100 bytes, says when it has, and waits. */
  printer(name: string, mebibytes: number): string {
    const line = "x".repeat(99);
    return this.#write(
      name,
      `yes ${line} | head -c ${mebibytes}M\n: >"${this.path("done")}.up"\n${IDLE}`,
    );
  }

  /** Forgets that programs have run. */
  forget(names: readonly string[]): void {
    for (const name of names) rmSync(`${this.path(name)}.up`, { force: true });
  }

  /** Waits until all have run since they were forgotten. */
  async up(names: readonly string[], withinMs: number): Promise<void> {
    const missing = (): string[] => names.filter((name) => !existsSync(`${this.path(name)}.up`));
    await until(() => missing().length === 0, withinMs, "not all were started");
  }

  /** Waits until none runs. */
  async down(withinMs: number): Promise<void> {
    await until(() => this.running().length === 0, withinMs, "not all have ended");
  }

  /** Pids of all that run, or of those with one name. */
  running(name?: string): number[] {
    const wanted = name === undefined ? `${this.#programs}/` : `${this.path(name)}\0`;
    return readdirSync("/proc").flatMap((pid) => {
      if (!/^[0-9]+$/.test(pid)) return [];
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "latin1");
        return words.includes(wanted) ? [Number(pid)] : [];
      } catch {
        return [];
      }
    });
  }

  /** Ends whatever was left here: of the programs, and of a manager that was killed. */
  killAll(): void {
    for (const name of readdirSync("/proc")) {
      const pid = Number(name);
      if (!Number.isInteger(pid) || pid === process.pid) continue;
      try {
        const places = [
          readlinkSync(`/proc/${pid}/cwd`),
          readFileSync(`/proc/${pid}/cmdline`, "latin1"),
        ];
        if (places.some((place) => place.includes(`${this.folder}/`))) process.kill(pid, "SIGKILL");
      } catch {
        // it has ended meanwhile, or is not ours
      }
    }
  }

  #write(name: string, body: string): string {
    const text = `#!/bin/sh\n: >"$0.up"\n${body}\n`;
    writeFileSync(this.path(name), text, { mode: 0o700 });
    return name;
  }
}

async function until(holds: () => boolean, withinMs: number, fault: string): Promise<void> {
  for (const deadline = performance.now() + withinMs; !holds(); await Bun.sleep(0.5)) {
    if (performance.now() > deadline) throw new Error(fault);
  }
}

export interface Manager {
  readonly name: string;
  /** Programs that must be installed. */
  readonly needs: readonly string[];
  readonly pid: number;
  /** Starts the manager, with these programs known and not running; or anew after it was killed. */
  begin(crew: Crew, names: readonly string[]): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
  status(): Promise<void>;
  /** What a user does after a kill, so that everything runs again. */
  restart(): Promise<void>;
  end(crew: Crew): Promise<void>;
  outputFolder(crew: Crew): string;
}

/** Runs a tool to its end; what it says does not matter. */
async function tool(cmd: readonly string[], env: Record<string, string> = {}): Promise<void> {
  const child = Bun.spawn([...cmd], {
    env: { ...ENV, ...env },
    stdio: ["ignore", "ignore", "ignore"],
  });
  await child.exited;
}

function launch(cmd: readonly string[], env: Record<string, string> = {}): Bun.Subprocess {
  return Bun.spawn([...cmd], { env: { ...ENV, ...env }, stdio: ["ignore", "ignore", "ignore"] });
}

async function endProcess(
  child: Bun.Subprocess | undefined,
  signal: NodeJS.Signals,
): Promise<void> {
  child?.kill(signal);
  const timer = setTimeout(() => child?.kill("SIGKILL"), 20_000);
  await child?.exited;
  clearTimeout(timer);
}

/** Ours, as the executable. */
class Ours implements Manager {
  readonly name = "veecle-orchestrator";
  readonly needs = [];
  #daemon: Bun.Subprocess | undefined;
  #command: readonly string[] = [];
  #socket = "";

  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }

  async begin(crew: Crew, names: readonly string[]): Promise<void> {
    const isAgain = existsSync(join(crew.folder, "veecle-orchestrator"));
    if (!isAgain) this.#command = await buildDaemon(crew.folder);
    this.#socket = join(crew.folder, "socket");
    const state = join(crew.folder, "state");
    const words = ["--control-socket", this.#socket, "--state-dir", state];
    this.#daemon = launch([...this.#command, ...words], { XDG_RUNTIME_DIR: crew.folder });
    const client = await this.#connect();
    for (const name of isAgain ? [] : names) {
      await client.request({
        kind: "Add",
        id: newInstanceId(),
        path: crew.path(name),
        settings: { name, restart: "always", restartDelayMs: 0, stopGraceMs: GRACE_S * 1_000 },
      });
    }
    client.close();
  }

  // By default it waits until the programs have been steady for a while, which no other does.
  start = (): Promise<void> => this.#tell("start", "--all", "--no-wait");
  stop = (): Promise<void> => this.#tell("stop", "--all");
  status = (): Promise<void> => this.#tell("ps");
  restart = async (): Promise<void> => {};
  end = (): Promise<void> => endProcess(this.#daemon, "SIGTERM");
  outputFolder = (crew: Crew): string => join(crew.folder, "state", "output");

  #tell(...words: readonly string[]): Promise<void> {
    return tool([this.#command[0] as string, "--socket", this.#socket, ...words]);
  }

  async #connect(): Promise<ControlClient> {
    for (const deadline = performance.now() + 10_000; ; await Bun.sleep(5)) {
      try {
        return await ControlClient.connect({ kind: "unix", path: this.#socket });
      } catch (error) {
        if (performance.now() > deadline) throw error;
      }
    }
  }
}

class Supervisord implements Manager {
  readonly name = "supervisor";
  readonly needs = ["supervisord", "supervisorctl"];
  #daemon: Bun.Subprocess | undefined;
  #conf = "";

  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }

  async begin(crew: Crew, names: readonly string[]): Promise<void> {
    const { folder } = crew;
    this.#conf = join(folder, "conf");
    const logs = this.outputFolder(crew);
    mkdirSync(logs, { recursive: true });
    const programs = names.map((name) => [
      `[program:${name}]`,
      `command=${crew.path(name)}`,
      "autostart=false",
      "autorestart=true",
      "startsecs=0",
      `stopwaitsecs=${GRACE_S}`,
      "stopasgroup=true",
      "killasgroup=true",
      `stdout_logfile=${logs}/${name}.log`,
      "stdout_logfile_maxbytes=10MB",
      "stdout_logfile_backups=2",
      "redirect_stderr=true",
    ]);
    const socket = join(folder, "sock");
    const lines = [
      `[unix_http_server]\nfile=${socket}`,
      `[supervisord]\nnodaemon=true\nuser=root\npidfile=${folder}/pid\nlogfile=${folder}/log\nchildlogdir=${folder}`,
      "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
      `[supervisorctl]\nserverurl=unix://${socket}`,
      ...programs.map((words) => words.join("\n")),
    ];
    writeFileSync(this.#conf, `${lines.join("\n")}\n`);
    rmSync(socket, { force: true });
    this.#daemon = launch(["supervisord", "-c", this.#conf]);
    await until(() => existsSync(socket), 20_000, "supervisord does not serve");
  }

  start = (): Promise<void> => tool(["supervisorctl", "-c", this.#conf, "start", "all"]);
  stop = (): Promise<void> => tool(["supervisorctl", "-c", this.#conf, "stop", "all"]);
  status = (): Promise<void> => tool(["supervisorctl", "-c", this.#conf, "status"]);
  restart = (): Promise<void> => this.start();
  end = (): Promise<void> => endProcess(this.#daemon, "SIGTERM");
  outputFolder = (crew: Crew): string => join(crew.folder, "logs");
}

/** What `runit` and `s6` share: a folder for each program, with a script `run` in it. */
abstract class Folders implements Manager {
  abstract readonly name: string;
  abstract readonly needs: readonly string[];
  protected services: readonly string[] = [];
  #daemon: Bun.Subprocess | undefined;

  get pid(): number {
    return this.#daemon?.pid ?? 0;
  }

  async begin(crew: Crew, names: readonly string[]): Promise<void> {
    const all = join(crew.folder, "services");
    this.services = names.map((name) => join(all, name));
    for (const [i, name] of names.entries()) {
      const folder = this.services[i] as string;
      if (existsSync(folder)) continue;
      const logs = join(this.outputFolder(crew), name);
      mkdirSync(join(folder, "log"), { recursive: true });
      mkdirSync(logs, { recursive: true });
      const script = (path: string, line: string): void =>
        writeFileSync(join(folder, path), `#!/bin/sh\nexec ${line}\n`, { mode: 0o700 });
      script("run", `${crew.path(name)} 2>&1`);
      script("log/run", this.logger(logs));
      writeFileSync(join(folder, "down"), "");
      writeFileSync(join(folder, "timeout-kill"), `${GRACE_S * 1_000}\n`); // of s6
    }
    this.#daemon = launch(this.scanner(all));
    await until(() => this.services.every((one) => this.isKnown(one)), 20_000, "not all are known");
  }

  abstract scanner(folder: string): string[];
  abstract logger(logs: string): string;
  abstract isKnown(service: string): boolean;
  abstract start(): Promise<void>;
  abstract stop(): Promise<void>;
  abstract status(): Promise<void>;
  restart = (): Promise<void> => this.start();
  outputFolder = (crew: Crew): string => join(crew.folder, "logs");

  async end(crew: Crew): Promise<void> {
    await this.shutDown();
    await endProcess(this.#daemon, "SIGTERM");
    crew.killAll();
  }

  abstract shutDown(): Promise<void>;
}

class Runit extends Folders {
  readonly name = "runit";
  readonly needs = ["runsvdir", "sv", "svlogd"];
  scanner = (folder: string): string[] => ["runsvdir", folder];
  logger = (logs: string): string => {
    writeFileSync(join(logs, "config"), "s10485760\nn3\n");
    return `svlogd ${logs}`;
  };
  isKnown = (service: string): boolean => existsSync(join(service, "supervise/ok"));
  start = (): Promise<void> => tool(["sv", "start", ...this.services]);
  stop = (): Promise<void> => tool(["sv", "-w", String(GRACE_S), "force-stop", ...this.services]);
  status = (): Promise<void> => tool(["sv", "status", ...this.services]);
  shutDown = (): Promise<void> => tool(["sv", "-w", "1", "force-shutdown", ...this.services]);
}

class S6 extends Folders {
  readonly name = "s6";
  readonly needs = ["s6-svscan", "s6-svc", "s6-svstat", "s6-log"];
  scanner = (folder: string): string[] => ["s6-svscan", "-c", "500", folder];
  logger = (logs: string): string => `s6-log n3 s10485760 ${logs}`;
  isKnown = (service: string): boolean => existsSync(join(service, "supervise/control"));
  start = (): Promise<void> => this.#each("s6-svc -u");
  stop = (): Promise<void> => this.#each(`s6-svc -wD -T ${2 * GRACE_S * 1_000} -d`);
  status = (): Promise<void> => this.#each("s6-svstat");
  shutDown = (): Promise<void> => this.#each("s6-svc -xd");

  /** Its tools take one service each: a loop of the shell is how it is done. */
  #each(command: string): Promise<void> {
    return tool(["sh", "-c", `for one; do ${command} "$one" & done; wait`, "sh", ...this.services]);
  }
}

class Pm2 implements Manager {
  readonly name = "pm2";
  readonly needs = ["pm2"];
  #home = "";
  #file = "";

  get pid(): number {
    return Number(readFileSync(join(this.#home, "pm2.pid"), "utf8"));
  }

  async begin(crew: Crew, names: readonly string[]): Promise<void> {
    this.#home = join(crew.folder, "home");
    this.#file = join(crew.folder, "all.json");
    const apps = names.map((name) => ({
      name,
      script: crew.path(name),
      interpreter: "none",
      kill_timeout: GRACE_S * 1_000,
      out_file: join(this.outputFolder(crew), `${name}.log`),
    }));
    mkdirSync(this.outputFolder(crew), { recursive: true });
    writeFileSync(this.#file, JSON.stringify({ apps }));
    await this.#tell("ping");
  }

  start = (): Promise<void> => this.#tell("start", this.#file);
  stop = (): Promise<void> => this.#tell("stop", "all");
  status = (): Promise<void> => this.#tell("list");
  restart = (): Promise<void> => this.start();
  end = (): Promise<void> => this.#tell("kill");
  outputFolder = (crew: Crew): string => join(crew.folder, "logs");

  #tell(...words: readonly string[]): Promise<void> {
    return tool(["pm2", ...words], { PM2_HOME: this.#home });
  }
}

export const MANAGERS: readonly Manager[] = [
  new Ours(),
  new Supervisord(),
  new Runit(),
  new S6(),
  new Pm2(),
];
