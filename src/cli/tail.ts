// The last lines of an instance: what it had to say before it was asked about.

import type { EventInfo, LineInfo } from "../protocol/info.ts";
import { MAX_SHOWN_LINE } from "../limits.ts";
import { shorten } from "../log.ts";
import type { InstanceId } from "../model.ts";
import { tamed } from "./logs.ts";
import type { Chosen, Session } from "./session.ts";

/** Lines that are shown with a failure. */
const SHOWN_LINES = 8;

/** The last lines of output. */
export async function lastLines(
  session: Session,
  id: InstanceId,
  last: number,
): Promise<LineInfo[]> {
  const client = await session.newClient();
  return Array.fromAsync(client.output({ ids: [id], last })).finally(() => client.close());
}

/** The last events. */
export async function lastEvents(
  session: Session,
  id: InstanceId,
  last: number,
): Promise<EventInfo[]> {
  const client = await session.newClient();
  return Array.fromAsync(client.events({ ids: [id], last })).finally(() => client.close());
}

/** What an instance has printed last since a time, as a paragraph for standard error. */
export async function lastOutput(
  session: Session,
  { id, name }: Chosen,
  sinceMs: number,
): Promise<string> {
  try {
    const printed = await lastLines(session, id, SHOWN_LINES);
    const lines = printed.filter(({ time }) => time >= sinceMs);
    if (lines.length === 0) return `${name} has printed nothing\n`;
    const { outputIsScreen, reportIsScreen } = session.terminal;
    const isScreen = outputIsScreen || reportIsScreen;
    const shown = lines.map(({ line }) => {
      const text = shorten(line, MAX_SHOWN_LINE);
      return `  ${isScreen ? tamed(text, session.reportColour) : text}\n`;
    });
    return `last output of ${name}:\n${shown.join("")}`;
  } catch {
    return ""; // what has failed is told already
  }
}
