// Whether who is silent to us is the existing orchestrator: it takes our first bytes for the beginning of
// a line, and waits for the end of it for ever.

import type { Address } from "../address.ts";
import { encodeFrame } from "../frame.ts";

const QUESTION = JSON.stringify("Version");

/** A daemon that knows both dialects answers both at once: so long the other answer may take. */
const GRACE_MS = 100;

/** Whether it answers a question in a line, and not the same one in a frame. */
export async function speaksLinesOnly(address: Address, withinMs: number): Promise<boolean> {
  const inFrame = isAnswered(address, encodeFrame(QUESTION), withinMs + GRACE_MS);
  if (!(await isAnswered(address, Buffer.from(`${QUESTION}\n`), withinMs))) return false;
  return !(await Promise.race([inFrame, Bun.sleep(GRACE_MS).then(() => false)]));
}

async function isAnswered(
  address: Address,
  question: Uint8Array,
  withinMs: number,
): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), withinMs);
  const socket = {
    open: (opened: Bun.Socket) => void opened.write(question),
    data: () => resolve(true),
    close: () => resolve(false),
    error: () => resolve(false),
  };
  const connecting =
    address.kind === "unix"
      ? Bun.connect({ unix: address.path, socket })
      : Bun.connect({ hostname: address.host, port: address.port, socket });
  connecting.catch(() => resolve(false));
  const answer = await promise;
  clearTimeout(timer);
  connecting.then((opened) => opened.terminate()).catch(() => {});
  return answer;
}
