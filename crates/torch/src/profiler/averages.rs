//! [`KeyAverage`]: the events of a recording summed up by name.

use std::collections::HashMap;

use super::event::Event;

/// All events of one name, summed up. Times are in nanoseconds, memory in bytes; "self" is without what the events
/// called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyAverage {
    /// The operator, kernel or range.
    pub name: String,
    /// The shapes of its inputs, when grouped by them.
    pub shapes: String,
    /// Whether it ran on the CPU, as opposed to a device.
    pub on_cpu: bool,
    /// Whether it is a range of the program's own.
    pub is_range: bool,
    /// How often it ran.
    pub calls: u64,
    /// Time on the CPU.
    pub cpu_time_total: u64,
    /// Time on the CPU, itself alone.
    pub self_cpu_time_total: u64,
    /// Time on a device, of what it started there.
    pub device_time_total: u64,
    /// Time on a device, of what it started there itself.
    pub self_device_time_total: u64,
    /// Memory of the CPU that it allocated and did not free.
    pub cpu_memory_usage: i64,
    /// The same, itself alone.
    pub self_cpu_memory_usage: i64,
    /// Memory of devices that it allocated and did not free.
    pub device_memory_usage: i64,
    /// The same, itself alone.
    pub self_device_memory_usage: i64,
    /// Floating-point operations, as far as they are known.
    pub flops: u64,
}

const MEMORY: &str = "[memory]";

/// Events that `torch.profiler` omits from its tables.
const LEFT_OUT: [&str; 7] = [
    MEMORY,
    "[OutOfMemory]",
    "profiler::_record_function_enter",
    "profiler::_record_function_enter_new",
    "profiler::_record_function_exit",
    "aten::is_leaf",
    "aten::_version",
];

/// An event in the call tree on the CPU.
#[derive(Default)]
struct Node {
    parent: Option<usize>,
    children: Vec<usize>,
    /// Time of the device work that it started itself.
    kernels: u64,
    cpu_memory: i64,
    device_memory: i64,
    /// Whether it has the name of its parent, and is the only call of its parent.
    is_double: bool,
}

/// Sums up `events`, which are sorted by start.
pub(super) fn key_averages(events: Vec<Event>, group_by_input_shapes: bool) -> Vec<KeyAverage> {
    let (memory, events): (Vec<Event>, Vec<Event>) = events.into_iter().partition(|event| event.name == MEMORY);
    let events: Vec<Event> = events.into_iter().filter(|event| !LEFT_OUT.contains(&event.name.as_str())).collect();
    let mut tree = tree(&events);
    assign_memory(&events, &mut tree, &memory);
    assign_kernels(&events, &mut tree);
    drop_doubles(&events, &mut tree);
    let device_times = device_times(&events, &tree);

    let mut places = HashMap::new();
    let mut rows: Vec<KeyAverage> = Vec::new();
    for (index, event) in events.iter().enumerate().filter(|(index, _)| !tree[*index].is_double) {
        let name = if event.name.starts_with("ProfilerStep#") { "ProfilerStep*" } else { event.name.as_str() };
        let shapes = if group_by_input_shapes { event.shapes.as_str() } else { "" };
        let place = *places.entry((name, shapes, event.on_cpu, event.is_range)).or_insert_with(|| {
            rows.push(KeyAverage {
                name: name.to_owned(),
                shapes: shapes.to_owned(),
                on_cpu: event.on_cpu,
                is_range: event.is_range,
                ..KeyAverage::default()
            });
            rows.len() - 1
        });
        add(&mut rows[place], index, &events, &tree, &device_times);
    }
    rows
}

fn add(row: &mut KeyAverage, index: usize, events: &[Event], tree: &[Node], device_times: &[u64]) {
    let (event, node) = (&events[index], &tree[index]);
    row.calls += 1;
    row.flops += event.flops;
    row.device_time_total += device_times[index];
    if !event.on_cpu {
        row.self_device_time_total += device_times[index];
        return;
    }
    row.cpu_time_total += event.duration_ns();
    row.cpu_memory_usage += node.cpu_memory;
    row.device_memory_usage += node.device_memory;
    if event.is_async {
        return;
    }
    let children = || node.children.iter().copied();
    row.self_cpu_time_total +=
        event.duration_ns().saturating_sub(children().map(|child| events[child].duration_ns()).sum());
    row.self_device_time_total += node.kernels;
    row.self_cpu_memory_usage += node.cpu_memory - children().map(|child| tree[child].cpu_memory).sum::<i64>();
    row.self_device_memory_usage += node.device_memory - children().map(|child| tree[child].device_memory).sum::<i64>();
}

/// The call tree: on each thread, the innermost enclosing event of another is its caller.
fn tree(events: &[Event]) -> Vec<Node> {
    let mut nodes: Vec<Node> = events.iter().map(|_| Node::default()).collect();
    let mut open: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, event) in events.iter().enumerate().filter(|(_, event)| event.on_cpu && !event.is_async) {
        let stack = open.entry(event.thread).or_default();
        while let Some(&top) = stack.last() {
            if event.start_ns < events[top].end_ns && event.end_ns <= events[top].end_ns {
                nodes[index].parent = Some(top);
                nodes[top].children.push(index);
                break;
            }
            stack.pop();
        }
        stack.push(index);
    }
    nodes
}

/// An allocation counts for every event it happened in.
fn assign_memory(events: &[Event], tree: &mut [Node], memory: &[Event]) {
    for (event, node) in events.iter().zip(tree).filter(|(event, _)| event.on_cpu) {
        let from = memory.partition_point(|record| record.start_ns < event.start_ns);
        for record in memory[from..].iter().take_while(|record| record.start_ns <= event.end_ns) {
            if record.thread == event.thread {
                *(if record.on_cpu { &mut node.cpu_memory } else { &mut node.device_memory }) += record.bytes;
            }
        }
    }
}

/// Device work counts for the operator that started it.
fn assign_kernels(events: &[Event], tree: &mut [Node]) {
    let mut by_starter: HashMap<u64, u64> = HashMap::new();
    for event in events.iter().filter(|event| !event.on_cpu && event.linked_correlation_id > 0) {
        *by_starter.entry(event.linked_correlation_id).or_default() += event.duration_ns();
    }
    for (event, node) in events.iter().zip(tree) {
        if event.on_cpu && !event.is_async && event.linked_correlation_id == 0 {
            node.kernels = by_starter.get(&event.correlation_id).copied().unwrap_or(0);
        }
    }
}

/// An operator that only calls the one of the same name, as wrappers do, counts once.
fn drop_doubles(events: &[Event], tree: &mut [Node]) {
    // A caller comes before what it calls, so one walk finds chains of any length.
    for index in 0..events.len() {
        let Some(parent) = tree[index].parent else { continue };
        if events[parent].name == events[index].name && tree[parent].children.len() == 1 {
            let children = std::mem::take(&mut tree[index].children);
            children.iter().for_each(|&child| tree[child].parent = Some(parent));
            tree[parent].children = children;
            tree[parent].kernels += tree[index].kernels;
            tree[index].is_double = true;
        }
    }
}

/// Device time of each event, with that of what it called.
fn device_times(events: &[Event], tree: &[Node]) -> Vec<u64> {
    let mut times: Vec<u64> = events
        .iter()
        .zip(tree)
        .map(|(event, node)| if event.on_cpu { node.kernels } else { event.duration_ns() })
        .collect();
    for index in (0..events.len()).rev() {
        if let Some(parent) = tree[index].parent.filter(|_| !tree[index].is_double) {
            times[parent] += times[index];
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, start_ns: u64, end_ns: u64) -> Event {
        Event {
            name: name.into(),
            shapes: String::new(),
            start_ns,
            end_ns,
            thread: 1,
            correlation_id: start_ns + 1,
            linked_correlation_id: 0,
            flops: 0,
            bytes: 0,
            on_cpu: true,
            is_range: false,
            is_async: false,
        }
    }

    #[test]
    fn time_of_callees_is_not_the_callers_own() {
        let events = vec![
            event("step", 0, 100),
            event("linear", 10, 60),
            event("addmm", 20, 50),
            event("addmm", 70, 80),
            Event { thread: 2, ..event("elsewhere", 75, 78) },
        ];
        let rows = key_averages(events, false);
        let averages: Vec<_> =
            rows.iter().map(|r| (&*r.name, r.calls, r.cpu_time_total, r.self_cpu_time_total)).collect();
        let expected = [("step", 1, 100, 40), ("linear", 1, 50, 20), ("addmm", 2, 40, 40), ("elsewhere", 1, 3, 3)];
        assert_eq!(averages, expected);
    }

    #[test]
    fn a_wrapper_of_the_same_name_counts_once() {
        let events = vec![event("add", 0, 10), event("add", 1, 9), event("add", 2, 8), event("fill", 3, 4)];
        let rows = key_averages(events, false);
        let averages: Vec<_> =
            rows.iter().map(|r| (&*r.name, r.calls, r.cpu_time_total, r.self_cpu_time_total)).collect();
        assert_eq!(averages, [("add", 1, 10, 9), ("fill", 1, 1, 1)]);
    }

    #[test]
    fn device_work_counts_for_its_starter_and_all_around_it() {
        let kernel = |start, end, starter| Event {
            on_cpu: false,
            linked_correlation_id: starter,
            thread: 9,
            ..event("kernel", start, end)
        };
        let events = vec![event("step", 0, 100), event("mm", 10, 20), kernel(30, 70, 11), kernel(70, 75, 1)];
        let rows = key_averages(events, false);
        let averages: Vec<_> =
            rows.iter().map(|r| (&*r.name, r.device_time_total, r.self_device_time_total, r.cpu_time_total)).collect();
        assert_eq!(averages, [("step", 45, 5, 100), ("mm", 40, 40, 10), ("kernel", 45, 45, 0)]);
    }

    #[test]
    fn memory_counts_for_every_event_it_was_allocated_in() {
        let bytes = |at, bytes| Event { bytes, ..event("[memory]", at, at) };
        let events = vec![event("step", 0, 100), event("empty", 10, 20), bytes(15, 64), bytes(30, -16)];
        let rows = key_averages(events, false);
        let averages: Vec<_> = rows.iter().map(|r| (&*r.name, r.cpu_memory_usage, r.self_cpu_memory_usage)).collect();
        assert_eq!(averages, [("step", 48, -16), ("empty", 64, 64)]);
    }

    #[test]
    fn steps_are_one_row_and_shapes_several() {
        let with_shapes = |at, shapes: &str| Event { shapes: shapes.into(), ..event("mm", at, at + 1) };
        let events = vec![event("ProfilerStep#1", 0, 5), event("ProfilerStep#2", 5, 9), with_shapes(10, "[[2]]")];
        assert_eq!(key_averages(events.clone(), false).iter().map(|r| r.calls).collect::<Vec<_>>(), [2, 1]);
        let events = vec![with_shapes(10, "[[2]]"), with_shapes(12, "[[3]]"), with_shapes(14, "[[2]]")];
        let rows = key_averages(events, true);
        assert_eq!(rows.iter().map(|r| (&*r.shapes, r.calls)).collect::<Vec<_>>(), [("[[2]]", 2), ("[[3]]", 1)]);
    }
}
