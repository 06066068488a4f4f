// The orchestrator under test: the real daemon as a process of its own, and a connection to it.

import { openSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { ControlClient } from "../src/client.ts";
import type { Info } from "../src/protocol/info.ts";
import type { Request } from "../src/protocol.ts";

const ROOT = join(import.meta.dir, "..");
const DAEMON = join(ROOT, "src/daemon.ts");
const START_MS = 10_000;
const STOP_MS = 20_000;
/** How often is looked whether it serves: some rows measure how soon. */
const LOOK_MS = 2;

export class DaemonProcess {
  /** Of its control socket. */
  readonly path: string;
  readonly #process: Bun.Subprocess;
  readonly #client: ControlClient;
  /** If the bench ends before its time: the daemon ends its instances by itself. */
  readonly #end = (): void => this.#process.kill("SIGTERM");

  private constructor(path: string, process_: Bun.Subprocess, client: ControlClient) {
    this.path = path;
    this.#process = process_;
    this.#client = client;
    process.on("exit", this.#end);
  }

  /**
   * Starts a daemon whose sockets and log are in `folder`, with the words of `prefix` before its
   * command and `args` behind it; `command` is another one than that of the source.
   */
  static async start(
    folder: string,
    {
      prefix = [],
      command = [process.execPath, ...daemonFlags(), DAEMON],
      args = [],
    }: {
      prefix?: readonly string[];
      command?: readonly string[];
      args?: readonly string[];
    } = {},
  ): Promise<DaemonProcess> {
    const path = join(folder, "control.socket");
    const log = join(folder, "daemon.log");
    const child = Bun.spawn({
      cmd: [...prefix, ...command, "--control-socket", path, ...args],
      env: {
        PATH: process.env["PATH"] ?? "/usr/bin:/bin",
        XDG_RUNTIME_DIR: folder,
        XDG_STATE_HOME: join(folder, "state"),
      },
      stdin: "ignore",
      stdout: "ignore",
      stderr: openSync(log, "a"),
    });
    for (const deadline = performance.now() + START_MS; ; await Bun.sleep(LOOK_MS)) {
      try {
        const client = await ControlClient.connect({ kind: "unix", path }, { answerMs: 30_000 });
        return new DaemonProcess(path, child, client);
      } catch (error) {
        if (child.exitCode === null && performance.now() < deadline) continue;
        child.kill("SIGKILL");
        const said = readFileSync(log, "utf8").trim().slice(-500);
        throw new Error(`The daemon does not serve; it says: ${said}`, { cause: error });
      }
    }
  }

  /** Sends requests without waiting in between, until all are answered. */
  async requestAll(requests: readonly Request[]): Promise<void> {
    await Promise.all(requests.map((request) => this.#client.request(request)));
  }

  get pid(): number {
    return this.#process.pid;
  }

  async info(): Promise<Info> {
    return (await this.#client.request({ kind: "Info" })) as Info;
  }

  /** Ends it as a lack of memory would. */
  async crash(): Promise<void> {
    this.#client.close();
    this.#process.kill("SIGKILL");
    await this.#process.exited;
    process.off("exit", this.#end);
  }

  /** Ends it as a service manager would. @throws if it does not end */
  async stop(): Promise<void> {
    this.#client.close();
    this.#end();
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), STOP_MS);
    await this.#process.exited;
    clearTimeout(timer);
    process.off("exit", this.#end);
    if (this.#process.exitCode !== 0) throw new Error("The daemon did not end as it should");
  }
}

/** Builds the executable, and returns the command of its daemon. */
export async function buildDaemon(folder: string): Promise<string[]> {
  return [await buildProgram(folder, "src/main.ts"), "daemon"];
}

/** Builds an executable of some source as `bun run build` does ours, and returns its path. */
export async function buildProgram(folder: string, source: string): Promise<string> {
  const program = join(folder, "veecle-orchestrator");
  const { scripts } = (await Bun.file(join(ROOT, "package.json")).json()) as {
    scripts: { build: string };
  };
  const command = scripts.build
    .replace("src/main.ts", source)
    .replace("dist/veecle-orchestrator", program)
    .replace(/^bun /, `"${process.execPath}" `);
  const build = Bun.spawn({
    cmd: ["sh", "-c", command],
    cwd: ROOT,
    stdio: ["ignore", "ignore", "pipe"],
  });
  const problem = await build.stderr.text();
  if ((await build.exited) !== 0) throw new Error(problem);
  return program;
}

/** Flags for the daemon's Bun, for example to profile it: BENCH_DAEMON_FLAGS="--cpu-prof". */
function daemonFlags(): string[] {
  return (process.env["BENCH_DAEMON_FLAGS"] ?? "").split(" ").filter((flag) => flag !== "");
}
