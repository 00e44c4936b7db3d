// What came of a run, as a small JSON file (SUMMARY), whatever the version of k6 calls its parts.
export function handleSummary(data) {
  const values = (name) => data.metrics?.[name]?.values ?? data.metrics?.[name] ?? {};
  const failed = [];
  const walk = (group) => {
    for (const { name, fails, passes } of Object.values(group?.checks ?? {})) {
      if (fails > 0) failed.push(`${name} (${fails} of ${fails + passes})`);
    }
    for (const inner of Object.values(group?.groups ?? {})) walk(inner);
  };
  walk(data.root_group);
  for (const [metric, { thresholds }] of Object.entries(data.metrics ?? {})) {
    for (const [rule, { ok }] of Object.entries(thresholds ?? {})) if (!ok && metric !== 'checks') failed.push(`${metric}: ${rule}`);
  }
  const direct = values('http_req_duration{name:direct}').med;
  const through = values('http_req_duration{name:api}').med;
  const told = {
    passes: values('checks').passes ?? 0,
    fails: values('checks').fails ?? 0,
    requests: values('http_reqs').count ?? 0,
    p95: values('http_req_duration')['p(95)'] ?? null,
    dropped: values('dropped_iterations').count ?? 0,
    ...(direct && through ? { ratio: through / direct } : {}),
    failed,
  };
  const text = JSON.stringify({ ...told, metrics: data.metrics }, null, 2);
  return { stdout: `${JSON.stringify(told, null, 2)}\n`, ...(__ENV.SUMMARY ? { [__ENV.SUMMARY]: text } : {}) };
}
