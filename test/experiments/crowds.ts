// Clients that connect and say nothing, or next to nothing, by the hundred (R25, R26).

import { readFileSync } from "node:fs";

import type { Daemon } from "../support/daemon.ts";
import { withDaemon } from "../support/daemon.ts";
import { Wire } from "../support/wire.ts";
import { demand, milliseconds, multiple, type Outcome } from "./outcome.ts";

export interface Crowd {
  /** Clients that say nothing. */
  readonly silent: number;
  /** Clients that send one byte of a request every second. */
  readonly slow: number;
  /** How long it is watched. */
  readonly ms: number;
  /** `ulimit -n` of the daemon; undefined: as it is. */
  readonly descriptors?: number;
}

/** A good client asks now and then, each time on a connection of its own; instances go on. */
export async function crowd({ silent, slow, ms, descriptors }: Crowd): Promise<Outcome> {
  const answers: number[] = [];
  let cpu = 0;
  let recoveryMs = 0;
  const limits = descriptors === undefined ? {} : { limits: `ulimit -n ${descriptors}` };
  await withDaemon(async (daemon) => {
    const puppet = await daemon.puppet();
    await puppet.connect();
    const clients = await Promise.all(
      Array.from({ length: silent + slow }, () =>
        Wire.connect(daemon.address).catch(() => undefined),
      ),
    );
    const before = cpuMs(daemon);
    const startMs = performance.now();
    let sent = 0;
    while (performance.now() - startMs < ms) {
      for (const client of clients.slice(silent)) client?.send('{"Stop":'.charAt(sent % 8));
      sent++;
      for (let round = 0; round < 10; round++) {
        const askedMs = performance.now();
        const wire = await Wire.connect(daemon.address);
        wire.send('"Version"\n');
        const line = await wire.line();
        answers.push(performance.now() - askedMs);
        wire.close();
        demand(line === '{"Ok":"0.1.0"}', `a good client is answered with ${line}`);
        await Bun.sleep(100);
      }
    }
    cpu = (cpuMs(daemon) - before) / (performance.now() - startMs);
    demand((await daemon.runtime(puppet.id)).connected, "the instance stays connected");
    for (const client of clients) client?.close();
    const endMs = performance.now();
    const path = daemon.script("#!/bin/sh\nexec sleep 1000\n");
    let added: string | undefined;
    while (added === undefined) added = await daemon.add(path).catch(() => undefined);
    recoveryMs = performance.now() - endMs;
  }, limits);
  answers.sort((a, b) => a - b);
  return {
    work: `${answers.length} requests beside ${silent + slow} clients`,
    figures: [
      milliseconds("answered p99", answers[Math.floor(answers.length * 0.99)] as number, 50, 1_000),
      multiple("processor share", cpu, 0.1, 0.5),
      milliseconds("recovered after", recoveryMs, 1_000, 5_000),
    ],
  };
}

/** Processor time of the daemon so far, in ms. */
function cpuMs(daemon: Daemon): number {
  const stat = readFileSync(`/proc/${daemon.pid}/stat`, "utf8");
  const words = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(words[11]) + Number(words[12])) * 10;
}
