// What tests of outboxes and routers hand in: runs of messages, and a kernel that takes as much as it is told.

import { type Dialect, messageEnd, NO_REST, type Run } from "../../src/message.ts";
import { TypeName } from "../../src/message/typename.ts";
import { DEFAULT_LINK_SETTINGS, type LinkSettings } from "../../src/model.ts";
import { LinkQueue } from "../../src/queue.ts";
import { nativeFrame, readMessage, veecleLine } from "./messages.ts";

/** Neighbouring messages of one type in a chunk of their own. */
export function runOf(
  dialect: Dialect,
  typeName: string,
  payloads: readonly (string | Buffer)[],
): Run {
  const messages = payloads.map((payload) =>
    dialect === "native"
      ? nativeFrame(1, typeName, payload)
      : veecleLine(typeName, payload.toString()),
  );
  const chunk = Buffer.concat(messages);
  return {
    dialect,
    type: new TypeName(typeName),
    chunk,
    start: 0,
    end: chunk.length,
    rest: NO_REST,
    count: messages.length,
    longest: Math.max(...messages.map((message) => message.length)),
  };
}

/** One large native message of type `T`, in pieces of these sizes and a last one with the rest, each in a chunk of its own. */
export function runInPieces(payload: string | Buffer, ...sizes: number[]): Run {
  const run = runOf("native", "T", [payload]);
  const pieces: Buffer[] = [];
  let at = 0;
  for (const size of [...sizes, run.end]) {
    pieces.push(Buffer.from(new Uint8Array(run.chunk.subarray(at, at + size))));
    at += size;
  }
  const [chunk, ...rest] = pieces as [Buffer, ...Buffer[]];
  return { ...run, chunk, rest };
}

/** The queue of a link with these settings. */
export function queueOf(settings: Partial<LinkSettings> = {}): LinkQueue {
  return new LinkQueue(undefined, { ...DEFAULT_LINK_SETTINGS, ...settings });
}

/** The receiving end of a connection. */
export class Kernel {
  /** How many bytes it still takes. */
  room: number;
  /** What it was given, write by write. */
  readonly writes: Buffer[] = [];
  /** The same writes as the views that they were. */
  readonly views: Buffer[] = [];

  constructor(room: number = Number.POSITIVE_INFINITY) {
    this.room = room;
  }

  readonly write = (bytes: Buffer): number => {
    const taken = Math.min(this.room, bytes.length);
    this.room -= taken;
    if (taken > 0) {
      this.writes.push(Buffer.from(bytes.subarray(0, taken)));
      this.views.push(bytes);
    }
    return taken;
  };

  get bytes(): Buffer {
    return Buffer.concat(this.writes);
  }

  /** The payloads of the whole messages in it; what is cut at the end is shown as `…`. */
  get payloads(): string[] {
    const { bytes } = this;
    const payloads: string[] = [];
    for (let at = 0; at < bytes.length;) {
      const dialect = bytes[at] === 0 ? "native" : "veecle";
      const isKnown = dialect === "veecle" || bytes.length - at >= 4;
      const end = isKnown ? messageEnd(dialect, bytes, at) : 0;
      if (end <= at || end > bytes.length) return [...payloads, "…"];
      payloads.push(readMessage(bytes, at).payload.toString());
      at = end;
    }
    return payloads;
  }
}

/** The accounts of a link in one line. */
export function accounts(queue: LinkQueue): string {
  const dropped = [...queue.dropped].map(([reason, count]) => `, ${count} ${reason}`).join("");
  return `${queue.routed} = ${queue.delivered} + ${queue.queued}${dropped}`;
}
