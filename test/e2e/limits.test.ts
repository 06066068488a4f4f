// Limits that a daemon meets only when it is full: how the last one is taken and one more refused.

import { expect, setDefaultTimeout, test } from "bun:test";

import { MAX_INSTANCES, MAX_LINKS } from "../../src/limits.ts";
import { withDaemon } from "../support/daemon.ts";
import { encode } from "../support/wire.ts";

setDefaultTimeout(60_000);

test(`1024 instances are registered and 8192 links are there, and one more is refused (R28, S9)`, () =>
  withDaemon(
    async (daemon) => {
      const control = await daemon.control("native");
      /** Answers to many requests, which are sent at once. */
      const all = async (requests: readonly unknown[]): Promise<unknown[]> => {
        control.wire.send(Buffer.concat(requests.map((request) => encode("native", request))));
        const answers: unknown[] = [];
        for (const _ of requests) answers.push(await control.answer());
        return answers;
      };
      const newInstance = (): object => ({
        Add: { id: crypto.randomUUID(), path: "/bin/true", privileged: false },
      });
      const to = await daemon.add("/bin/true");
      const newLink = (_: unknown, index: number): object => ({
        Link: { type_name: `T${index}`, to },
      });
      const added = await all(Array.from({ length: MAX_INSTANCES - 1 }, newInstance));
      const linked = await all(Array.from({ length: MAX_LINKS }, newLink));
      for (const answer of [...added, ...linked]) expect(answer).toHaveProperty("Ok");
      expect(await all([newInstance(), newLink(0, MAX_LINKS)])).toMatchObject([
        { Err: [expect.stringContaining("1024 are registered, which is the limit; remove one")] },
        { Err: [expect.stringContaining("8192 links, which is the limit; remove one")] },
      ]);
      await daemon.ok({ Remove: to });
      expect(await all([newInstance()])).toEqual([{ Ok: null }]);
    },
    { args: ["--ephemeral"] },
  ));
