-- wrk script, arguments: POST BYTES of JSON, or GET. It ends with one line of figures for the program that
-- started wrk.

function init(arguments)
    wrk.method = arguments[1]
    if wrk.method == "POST" then
        wrk.headers["Content-Type"] = "application/json"
        wrk.body = '{"workflowId":"bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d","countryCode":"SE","redirectUrl":"https://acme.example/'
        wrk.body = wrk.body .. string.rep("x", tonumber(arguments[2]) - #wrk.body - 2) .. '"}'
    end
end

-- Latencies in microseconds. `status` counts answers of 400 and above; a 2xx or 3xx is no error to wrk.
function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\nFIGURES {"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"refused":%d,"broken":%d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
