// `ps`: the instances as a table for people.

import { everyInstance, instanceDocument, type Chosen, type Session } from "./session.ts";
import { formatTable, paint } from "./table.ts";
import { formatDuration, stateStyle, stateWords } from "./words.ts";

const HEADER = ["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "CONNECTED", "MESSAGES", "ID"];
const STATE_COLUMN = 1;
/** Why something does not run is worth more than these, and `status` has them all. */
const SPARE = ["MESSAGES", "CONNECTED", "ID", "RESTARTS"].map((name) => HEADER.indexOf(name));

/** Digits of an id that are shown at least: its end, since ids made together begin alike. */
const SHOWN_DIGITS = 8;

export async function ps(session: Session): Promise<void> {
  const { terminal, colour, isQuiet } = session;
  const instances = everyInstance(await session.info());
  const document = {
    get instances() {
      return instances.map(instanceDocument);
    },
  };
  await session.answer(document, () => {
    if (isQuiet) return instances.map(({ id }) => `${id}\n`).join("");
    const nowMs = terminal.now();
    const ids = shortIds(instances.map(({ id }) => id));
    const rows = instances.map((instance, index) => row(instance, ids[index] as string, nowMs));
    const style = (index: number, column: number): string =>
      column === STATE_COLUMN ? stateStyle((instances[index] as Chosen).runtime) : "";
    const table = formatTable(HEADER, rows, {
      colour,
      columns: terminal.columns,
      spare: SPARE,
      names: [0],
      whole: [HEADER.indexOf("ID")],
      style,
    });
    if (instances.length > 0) return table;
    if (terminal.outputIsScreen) return paint(colour, "2", "no instances\n");
    return table;
  });
}

function row({ name, runtime }: Chosen, id: string, nowMs: number): string[] {
  return [
    name,
    stateWords(runtime, nowMs),
    runtime.pid === null ? "" : String(runtime.pid),
    typeof runtime.started === "number" ? formatDuration(nowMs - runtime.started) : "",
    String(runtime.restarts ?? 0),
    runtime.connected ? (runtime.dialect ?? "yes") : "no",
    String(runtime.messages?.received ?? 0),
    id,
  ];
}

/** The end of each id, as long as it takes to tell them apart. */
export function shortIds(ids: readonly string[]): string[] {
  let digits = SHOWN_DIGITS;
  const shorten = (): string[] => ids.map((id) => id.slice(-digits));
  let short = shorten();
  while (digits < 36 && new Set(short).size < ids.length) {
    digits += 4;
    short = shorten();
  }
  return short;
}
