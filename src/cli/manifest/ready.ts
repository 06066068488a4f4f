// What makes an instance ready: seen from outside, until it is so, has ended, or the time is over.

import { existsSync } from "node:fs";

import { OrchestratorError } from "../../errors.ts";
import { LAST_OUTPUT_MS } from "../../limits.ts";
import type { Readiness } from "../../manifest/shape.ts";
import type { InstanceId } from "../../model.ts";
import type { Deadline } from "../deadline.ts";
import { Unmet } from "../print.ts";
import type { Session } from "../session.ts";
import type { Watch } from "../watch.ts";
import { exitWords, formatDuration } from "../words.ts";

/** Pause between two looks at what nobody tells us of: a file, a port, a type. */
const LOOK_MS = 50;

/** A first line may bear an earlier millisecond than the start: one is rounded, the other cut off. */
const ROUNDING_MS = 2;

/** An instance that was started, and what it takes to be ready. */
export interface Awaited {
  readonly id: InstanceId;
  readonly name: string;
  readonly ready: Readiness;
}

/** What is waited for, in words that follow "until". */
export function readinessWords(ready: Readiness): string {
  if (typeof ready === "string") return `it is ${ready}`;
  const [[key, value] = ["", ""]] = Object.entries(ready);
  switch (key) {
    case "output":
      return `it prints ${JSON.stringify(value)}`;
    case "file":
      return `${value} is there`;
    case "port":
      return `port ${value} is open`;
    default:
      return `it sends ${value}`;
  }
}

/**
 * Settles when an instance that was started is ready.
 * @throws `Unmet` if it cannot be any more, `timed_out`
 */
export async function awaitReady(
  session: Session,
  watch: Watch,
  awaited: Awaited,
  deadline: Deadline,
): Promise<void> {
  const { id, name, ready } = awaited;
  if (ready === "running") return;
  const cannot = `${JSON.stringify(name)} is not ready: it was waited until ${readinessWords(ready)}`;
  const look = await looker(session, id, ready);
  try {
    for (;;) {
      if (await look.holds()) return;
      const runtime = (await session.info()).runtimes[id];
      if (runtime === undefined) throw new Unmet(`${cannot}; it was removed`);
      const isOver = runtime.state === "stopped" || runtime.state === "failed";
      if (isOver) await Promise.race([look.changed, Bun.sleep(LAST_OUTPUT_MS)]);
      if (isOver && !(await look.holds())) {
        const how =
          runtime.exit === null ? "it was stopped" : `it ended with ${exitWords(runtime.exit)}`;
        throw new Unmet(
          `${cannot}; ${runtime.state === "failed" ? `it failed: ${runtime.reason}` : how}`,
        );
      }
      if (deadline.leftMs === 0) {
        throw new OrchestratorError(
          "timed_out",
          `${cannot}; not within ${formatDuration(deadline.timeoutMs)}`,
        );
      }
      await Promise.race([look.changed, watch.changed(Math.min(deadline.leftMs, look.everyMs))]);
    }
  } finally {
    look.close();
  }
}

interface Look {
  holds(): boolean | Promise<boolean>;
  /** Settles when it has come to hold, where somebody tells. */
  readonly changed: Promise<void>;
  readonly everyMs: number;
  close(): void;
}

const NEVER = new Promise<void>(() => {});

async function looker(session: Session, id: InstanceId, ready: Readiness): Promise<Look> {
  const polled = (holds: Look["holds"]): Look => ({
    holds,
    changed: NEVER,
    everyMs: LOOK_MS,
    close: () => {},
  });
  if (ready === "running" || ready === "connected") {
    return {
      holds: async () => (await session.info()).runtimes[id]?.connected === true,
      changed: NEVER,
      everyMs: Number.POSITIVE_INFINITY, // an event tells
      close: () => {},
    };
  }
  if ("file" in ready) return polled(() => existsSync(ready.file));
  if ("port" in ready) return polled(() => isOpen(ready.port));
  if ("message" in ready) {
    const { message: typeName } = ready;
    return polled(async () => (await session.request({ kind: "Sent", id, typeName })) === true);
  }
  return outputLooker(session, id, ready.output);
}

/** Follows its output since its start, and finds a text in one of its lines. */
async function outputLooker(session: Session, id: InstanceId, text: string): Promise<Look> {
  const started = (await session.info()).runtimes[id]?.started ?? undefined;
  const since = started === undefined ? undefined : started - ROUNDING_MS;
  const client = await session.newClient();
  const lines = client.output({ ids: [id], since, follow: true });
  await lines.ready;
  let isFound = false;
  const { promise, resolve } = Promise.withResolvers<void>();
  const read = async (): Promise<void> => {
    for await (const { line } of lines) {
      if (!line.includes(text)) continue;
      isFound = true;
      resolve();
      return;
    }
  };
  read().catch(() => {}); // a lost daemon is told by the watch
  return {
    holds: () => isFound,
    changed: promise,
    everyMs: Number.POSITIVE_INFINITY,
    close: () => client.close(),
  };
}

/** Whether somebody accepts TCP connections on a port of this machine. */
async function isOpen(port: number): Promise<boolean> {
  try {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
    socket.end();
    return true;
  } catch {
    return false; // nobody listens yet
  }
}
