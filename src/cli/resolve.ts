// What a user means by a short word: an instance by a part of its id, a host.

import { parseTcpAddress } from "../address.ts";
import { OrchestratorError } from "../errors.ts";
import { isIPv4 } from "../ip.ts";
import { type InstanceId, type LinkTarget, parseTarget } from "../model.ts";
import { nearest } from "../nearest.ts";

/** Ids named in a message about several. */
const SHOWN_IDS = 4;

/**
 * The one instance with this name, or whose id is, begins or ends with `text`, in any case.
 * @throws `not_found` if there is none, or more than one
 */
export function findInstance(text: string, instances: ReadonlyMap<InstanceId, string>): InstanceId {
  const part = text.toLowerCase();
  const all = [...instances];
  const called = all.find(([, name]) => name === text);
  if (called !== undefined) return called[0];
  const found = all.filter(([id]) => id.startsWith(part) || id.endsWith(part));
  const [first] = found;
  if (first === undefined) {
    const names = nearest(text, [...instances.values()]);
    const near = names.length === 0 ? undefined : `did you mean ${names.join(" or ")}?`;
    const hint = isIPv4(text) ? `another orchestrator is HOST:PORT, such as ${text}:2661` : near;
    throw new OrchestratorError(
      "not_found",
      `Cannot find instance ${JSON.stringify(text)}: it is no name, and no id begins or ends with it`,
      hint === undefined ? {} : { hint },
    );
  }
  if (found.length > 1) {
    const more = found.length > SHOWN_IDS ? ` and ${found.length - SHOWN_IDS} more` : "";
    const shown = found.slice(0, SHOWN_IDS).map(([id, name]) => `${id} (${name})`);
    throw new OrchestratorError(
      "not_found",
      `Cannot tell which instance ${JSON.stringify(text)} is: it fits ${shown.join(", ")}${more}`,
      { hint: "write its name, or more of the id" },
    );
  }
  return first[0];
}

/**
 * Where a link leads that was typed as `text`; `instances` is asked only if it is neither a whole id nor an
 * address, and a host's name is looked up only if it is one.
 * @throws `not_found`, `timed_out`, or `misuse` for a bad address
 */
export async function findTarget(
  text: string,
  instances: () => Promise<ReadonlyMap<InstanceId, string>>,
  lookupMs: number,
): Promise<LinkTarget> {
  const target = parseTarget(text);
  if (target !== undefined) return target;
  if (!text.includes(":")) return { kind: "instance", id: findInstance(text, await instances()) };
  const { host, port } = parseTcpAddress(text);
  const address = host.includes("%") ? await onInterface(host) : await lookup(host, lookupMs);
  const found = parseTarget(address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);
  if (found === undefined) throw unknownHost(host, new Error(`${address} is not usable`));
  return found;
}

/** An address of an interface that is told by its name here: the daemon wants its number. */
async function onInterface(host: string): Promise<string> {
  const address = (await import("../datagram.ts")).numbered(host);
  if (address !== host) return address;
  throw new OrchestratorError("not_found", `Cannot look up host ${JSON.stringify(host)}`, {
    cause: new Error("this machine has no interface of that name"),
    hint: "`ip address` lists them",
  });
}

/** The first IPv4 address of a host, as most daemons listen there, else its first address. */
async function lookup(host: string, lookupMs: number): Promise<string> {
  const dns = await import("node:dns/promises");
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new OrchestratorError(
      "timed_out",
      `Cannot look up host ${JSON.stringify(host)}`,
      {
        cause: new Error(`no answer within ${lookupMs / 1000} s`),
      },
    );
    timer = setTimeout(() => reject(error), lookupMs);
  });
  try {
    const found = await Promise.race([dns.lookup(host, { all: true }), late]);
    const best = found.find(({ family }) => family === 4) ?? found[0];
    if (best === undefined) throw new Error("it has no address");
    return best.address;
  } catch (error) {
    throw error instanceof OrchestratorError ? error : unknownHost(host, new Error("no such host"));
  } finally {
    clearTimeout(timer);
  }
}

function unknownHost(host: string, cause: Error): OrchestratorError {
  return new OrchestratorError("not_found", `Cannot look up host ${JSON.stringify(host)}`, {
    cause,
    hint: "write its IP address, or check its name",
  });
}
