// Opens traces in Perfetto's own interface and asks its trace processor what it lost.
// node perfetto.mjs CONFIG.json: {playwright, chromium, address, traces}; prints one line of JSON for each trace.
import { readFileSync } from "node:fs";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { chromium } = await import(config.playwright);
const browser = await chromium.launch({
  executablePath: config.chromium,
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
for (const trace of config.traces) {
  const page = await browser.newPage();
  await page.goto(`${config.address}/#!/?url=${config.address}/traces/${trace}`);
  await page.waitForFunction(() => globalThis.app?.trace?.engine, null, { timeout: 120_000 });
  const told = await page.evaluate(async () => {
    const ask = async (query, columns) => {
      const rows = [];
      const row = (await globalThis.app.trace.engine.query(query)).iter(columns);
      for (; row.valid(); row.next()) rows.push(Object.keys(columns).map((name) => row[name]));
      return rows;
    };
    const count = async (table) => (await ask(`select count(*) as n from ${table}`, { n: 0 }))[0][0];
    const lost = "select name, value from stats where severity in ('data_loss', 'error') and value > 0";
    return {
      lost: await ask(lost, { name: "str", value: 0 }),
      slices: await count("slice"),
      flows: await count("flow"),
    };
  });
  console.log(JSON.stringify({ trace, ...told }));
  await page.close();
}
await browser.close();
