// The second baseline: `nats-server`, where it is installed.

import { existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { PATH } from "./loads.ts";

/** Where it is, or undefined. Distributions put it where only administrators look. */
export const NATS_SERVER: string | undefined =
  Bun.which("nats-server", { PATH: `${PATH}:/usr/local/sbin:/usr/sbin` }) ?? undefined;

const START_MS = 10_000;

/** A server on a port of its own, which is closed when it is killed. */
export interface NatsServer {
  readonly process: Bun.Subprocess;
  readonly port: number;
}

/** @throws if it is not installed or does not serve */
export async function startNats(folder: string): Promise<NatsServer> {
  if (NATS_SERVER === undefined) throw new Error("nats-server is not installed");
  const config = join(folder, "nats.conf");
  // It pings each client once at the beginning, and not again while something is measured.
  const text = `listen: "127.0.0.1:-1"\nports_file_dir: "${folder}"\nping_interval: "1h"\n`;
  writeFileSync(config, text);
  const log = join(folder, "nats.log");
  const child = Bun.spawn({
    cmd: [NATS_SERVER, "--config", config],
    stdin: "ignore",
    stdout: "ignore",
    stderr: openSync(log, "a"),
  });
  const ports = join(folder, `nats-server_${child.pid}.ports`);
  for (const deadline = performance.now() + START_MS; ; await Bun.sleep(10)) {
    const port = existsSync(ports) ? portIn(readFileSync(ports, "utf8")) : undefined;
    if (port !== undefined) return { process: child, port };
    if (child.exitCode === null && performance.now() < deadline) continue;
    child.kill("SIGKILL");
    throw new Error(
      `nats-server does not serve; it says: ${readFileSync(log, "utf8").slice(-500)}`,
    );
  }
}

/** The port in a ports file; undefined as long as it is not written whole. */
function portIn(text: string): number | undefined {
  const port = /"nats:\/\/127\.0\.0\.1:([0-9]+)"/.exec(text)?.[1];
  return port === undefined ? undefined : Number(port);
}
