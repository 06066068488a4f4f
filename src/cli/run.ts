// Carries out a parsed command: requests to the daemon, answers on standard output.

import { type Address, parseAddress } from "../address.ts";
import { ControlClient, defaultControlAddress } from "../client.ts";
import { OrchestratorError } from "../errors.ts";
import { escapeText } from "../log.ts";
import {
  formatTarget,
  type InstanceId,
  type LinkKey,
  newInstanceId,
  ON_FULL,
  parseInstanceId,
  parsePriority,
  parseQueueBound,
} from "../model.ts";
import { isObject } from "../json.ts";
import type { Info, Request } from "../protocol.ts";
import type { CommandName } from "./commands.ts";
import { formatLinks, formatRuntimes } from "./print.ts";
import { findInstance, findProgram, findTarget } from "./resolve.ts";
import type { Terminal } from "./terminal.ts";

/** One command at work: its words, its terminal, and one connection, made when it is needed. */
export class Session {
  readonly values: ReadonlyMap<string, string>;
  readonly terminal: Terminal;
  readonly colour: boolean;
  #client: ControlClient | undefined;

  constructor(values: ReadonlyMap<string, string>, terminal: Terminal, colour: boolean) {
    this.values = values;
    this.terminal = terminal;
    this.colour = colour;
  }

  async client(): Promise<ControlClient> {
    const { deadlines, env } = this.terminal;
    const address = controlAddress(this.values.get("--socket"), env);
    this.#client ??= await ControlClient.connect(address, deadlines);
    return this.#client;
  }

  /**
   * A new connection in place of one that has ended. A daemon ends a stream when its instance is
   * removed, and every connection when it dies: only asking again tells which.
   * @throws `unreachable` if nobody answers any more, with `reason` before the cause
   */
  async reconnect(reason: string): Promise<void> {
    this.#client?.close();
    this.#client = undefined;
    try {
      await this.request({ kind: "Version" });
    } catch (error) {
      if (!(error instanceof OrchestratorError)) throw error;
      const hint = error.hint === undefined ? {} : { hint: error.hint };
      const message = `${reason}: ${error.message}`;
      throw new OrchestratorError(error.code, message, { cause: error.cause, ...hint });
    }
  }

  async request(request: Request): Promise<unknown> {
    return (await this.client()).request(request);
  }

  async info(): Promise<Info> {
    const info = await this.request({ kind: "Info" });
    if (isObject(info) && isObject(info["runtimes"]) && Array.isArray(info["routes"])) {
      return info as unknown as Info;
    }
    throw new OrchestratorError("io", "Cannot read the orchestrator's state: unknown form", {
      hint: "is the daemon of another version than this program?",
    });
  }

  /** The instance that a value names by its id or a part of it. */
  async instance(name: string): Promise<InstanceId> {
    const text = this.values.get(name) as string;
    return parseInstanceId(text) ?? findInstance(text, await this.ids());
  }

  async ids(): Promise<readonly InstanceId[]> {
    return Object.keys((await this.info()).runtimes);
  }

  print(line: string): Promise<void> {
    return this.terminal.write(`${line}\n`);
  }

  close(): void {
    this.#client?.close();
  }
}

/** Every command: does its work, prints its answer, and may return an exit code other than 0. */
export const RUN: Readonly<Record<CommandName, (session: Session) => Promise<number | void>>> = {
  version: async (session) => {
    const version = await session.request({ kind: "Version" });
    await session.print(`server version: ${escapeText(String(version))}`);
  },
  "runtime add": add,
  "runtime start": async (session) => {
    const id = await session.instance("ID");
    const priority = parsePriority(session.values.get("--priority") ?? "");
    await session.request({ kind: "Start", id, priority });
    await session.print(`started instance ${id}`);
  },
  "runtime stop": async (session) => {
    const id = await session.instance("ID");
    await session.request({ kind: "Stop", id });
    await session.print(`stopped instance ${id}`);
  },
  "runtime remove": async (session) => {
    const id = await session.instance("ID");
    await session.request({ kind: "Remove", id });
    await session.print(`removed instance ${id}`);
  },
  "runtime list": async (session) => {
    await session.terminal.write(formatRuntimes(await session.info(), session.colour));
  },
  "runtime stdout": follow,
  "link add": async (session) => {
    const link = await linkKey(session);
    const { values } = session;
    const onFull = ON_FULL.find((policy) => policy === values.get("--on-full"));
    const settings = {
      ...parseQueueBound(values.get("--queue") ?? ""),
      ...(onFull === undefined ? {} : { onFull }),
    };
    await session.request({ kind: "Link", link, settings });
    await session.print(`linked ${escapeText(link.typeName)} to ${formatTarget(link.to)}`);
  },
  "link remove": async (session) => {
    const link = await linkKey(session);
    await session.request({ kind: "Unlink", link });
    await session.print(`unlinked ${escapeText(link.typeName)} from ${formatTarget(link.to)}`);
  },
  "link list": async (session) => {
    await session.terminal.write(formatLinks(await session.info(), session.colour));
  },
  clear,
};

/** `--socket`, else the environment's, else where a daemon listens by default. */
function controlAddress(
  option: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): Address {
  if (option !== undefined) return parseAddress(option);
  const text = env["VEECLE_ORCHESTRATOR_SOCKET"];
  if (text === undefined || text === "") return defaultControlAddress(env);
  try {
    return parseAddress(text);
  } catch (cause) {
    throw new OrchestratorError("misuse", "Cannot use VEECLE_ORCHESTRATOR_SOCKET", { cause });
  }
}

async function add(session: Session): Promise<void> {
  const { terminal, values } = session;
  const path = findProgram(values.get("PATH") as string, terminal.folder, terminal.env);
  const id = parseInstanceId(values.get("--id") ?? "") ?? newInstanceId();
  const privileged = values.has("--privileged");
  if (!values.has("--copy")) {
    await session.request({ kind: "Add", id, path, privileged });
    await session.print(`added instance ${id}`);
    return;
  }
  const client = await session.client();
  const { Progress } = await import("./progress.ts");
  const progress = new Progress(terminal.report, terminal.reportIsScreen, () => performance.now());
  const bytes = await client
    .upload(id, path, privileged, (sent, total) => progress.update(sent, total))
    .finally(() => progress.end());
  await session.print(`added instance ${id} (sent ${bytes} bytes)`);
}

async function linkKey(session: Session): Promise<LinkKey> {
  const { values, terminal } = session;
  const from = values.has("--from") ? await session.instance("--from") : undefined;
  const to = await findTarget(
    values.get("--to") as string,
    () => session.ids(),
    terminal.deadlines.answerMs,
  );
  return { from, typeName: values.get("--type") as string, to };
}

/** Raw bytes, a newline after each line, until the instance is removed or nobody reads. */
async function follow(session: Session): Promise<void> {
  const id = await session.instance("ID");
  const client = await session.client();
  const stream = client.follow(id);
  let isUnread = false;
  void session.terminal.outputClosed().then(() => {
    isUnread = true;
    client.close();
  });
  const newline = Buffer.from("\n");
  for await (const batch of stream.batches()) {
    await session.terminal.write(Buffer.concat(batch.flatMap((line) => [line, newline])));
  }
  if (!isUnread) await session.reconnect("Lost the orchestrator while following the output");
}

async function clear(session: Session): Promise<number> {
  const { terminal, values } = session;
  if (terminal.canAsk && !values.has("--yes")) {
    const info = await session.info();
    const runtimes = Object.values(info.runtimes);
    const links = info.routes.length;
    if (runtimes.length > 0 || links > 0) {
      const running = runtimes.filter((runtime) => runtime.state !== "stopped").length;
      terminal.report(
        `${formatRuntimes(info, false)}\n` +
          `This stops ${count(running, "instance")} and removes ` +
          `${count(runtimes.length, "instance")} and ${count(links, "link")}.\n`,
      );
      const answer = await terminal.ask("Continue? [y/N] ");
      if (!/^y(es)?$/i.test(answer)) {
        terminal.report("nothing was cleared\n");
        return 1;
      }
    }
  }
  await session.request({ kind: "Clear" });
  await session.print("cleared orchestrator state");
  return 0;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
