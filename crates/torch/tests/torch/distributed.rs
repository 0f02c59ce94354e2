//! Process groups with their ranks as threads of this process, one group for each.

use std::thread;
use std::time::{Duration, Instant};

use fulgurite_torch::TorchError;
use fulgurite_torch::distributed::{Backend, GroupOptions, ProcessGroup, ReduceOp, Store, TcpStoreOptions, Work};
use fulgurite_torch::tch::{Device, Kind, Tensor};

fn server(timeout: Duration) -> Store {
    Store::tcp(TcpStoreOptions { host: "127.0.0.1".into(), port: 0, is_server: true, timeout, ..Default::default() })
        .unwrap()
}

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

/// Runs `body` as each of `size` ranks, and gives what they return.
fn ranks<R: Send>(size: usize, options: &GroupOptions, body: impl Fn(ProcessGroup) -> R + Sync) -> Vec<R> {
    let store = server(LONG);
    thread::scope(|scope| {
        let (store, body) = (&store, &body);
        let threads: Vec<_> = (0..size)
            .map(|rank| scope.spawn(move || body(ProcessGroup::new(store, rank, size, options).unwrap())))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn patient() -> GroupOptions {
    GroupOptions { timeout: LONG, ..Default::default() }
}

fn impatient() -> GroupOptions {
    GroupOptions { timeout: Duration::from_secs(1), ..Default::default() }
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_slice(values)
}

mod collectives {
    use super::*;

    #[test]
    fn each_does_what_torch_distributed_says() {
        ranks(3, &patient(), |group| {
            let rank = group.rank();
            let own = || floats(&[rank as f32, 10.0]);

            let tensor = own();
            group.broadcast(&tensor, 2).unwrap();
            assert_eq!(tensor, floats(&[2.0, 10.0]));

            for (reduction, expected) in [
                (ReduceOp::Sum, [3.0, 30.0]),
                (ReduceOp::Mean, [1.0, 10.0]),
                (ReduceOp::Min, [0.0, 10.0]),
                (ReduceOp::Max, [2.0, 10.0]),
                (ReduceOp::Product, [0.0, 1000.0]),
            ] {
                let tensor = own();
                group.all_reduce(&tensor, reduction).unwrap();
                assert_eq!(tensor, floats(&expected), "{reduction:?}");
            }

            let tensor = own();
            group.reduce(&tensor, 1, ReduceOp::Mean).unwrap();
            assert_eq!(tensor, if rank == 1 { floats(&[1.0, 10.0]) } else { own() });

            let gathered = group.all_gather(&own()).unwrap();
            assert_eq!(Tensor::stack(&gathered, 0), floats(&[0.0, 10.0, 1.0, 10.0, 2.0, 10.0]).view([3, 2]));

            let gathered = group.gather(&own(), 1).unwrap();
            assert_eq!(gathered.map(|all| all.len()), (rank == 1).then_some(3));

            let parts: Vec<Tensor> = (0..3).map(|to| floats(&[(10 * rank + to) as f32])).collect();
            let sum = group.reduce_scatter(&parts, ReduceOp::Sum).unwrap();
            assert_eq!(sum, floats(&[(30 + 3 * rank) as f32]));
            let mean = group.reduce_scatter(&parts, ReduceOp::Mean).unwrap();
            assert_eq!(mean, floats(&[(10 + rank) as f32]));

            let mine = floats(&[0.0]);
            group.scatter(&mine, (rank == 2).then_some(&parts[..]), 2).unwrap();
            assert_eq!(mine, floats(&[20.0 + rank as f32]));

            // To rank r go r + 1 numbers.
            let sent: Vec<Tensor> = (0..3).map(|to| Tensor::full([to + 1], rank as i64, kind(Kind::Int64))).collect();
            let received: Vec<Tensor> = (0..3).map(|_| Tensor::zeros([rank as i64 + 1], kind(Kind::Int64))).collect();
            group.all_to_all(&received, &sent).unwrap();
            for (from, tensor) in received.iter().enumerate() {
                assert_eq!(*tensor, Tensor::full([rank as i64 + 1], from as i64, kind(Kind::Int64)));
            }

            let tensor = own();
            match rank {
                0 => group.send(&tensor, 1, 7).unwrap(),
                1 => group.recv(&tensor, 0, 7).unwrap(),
                _ => {}
            }
            assert_eq!(tensor, if rank == 1 { floats(&[0.0, 10.0]) } else { own() });

            group.barrier().unwrap();
            group.monitored_barrier(LONG).unwrap();
            group.monitored_barrier(LONG).unwrap();
        });
    }

    fn kind(kind: Kind) -> (Kind, Device) {
        (kind, Device::Cpu)
    }

    #[test]
    fn every_kind_can_be_moved_and_what_is_not_contiguous_too() {
        ranks(2, &patient(), |group| {
            for kind in [
                Kind::Uint8,
                Kind::Int8,
                Kind::Int16,
                Kind::Int,
                Kind::Int64,
                Kind::Half,
                Kind::BFloat16,
                Kind::Float,
                Kind::Double,
                Kind::Bool,
                Kind::ComplexFloat,
            ] {
                let values = Tensor::from_slice(&[0i64, 1, 1, 0, 1, 0]).view([2, 3]).to_kind(kind);
                let tensor = if group.rank() == 0 { values.copy() } else { values.zeros_like() };
                group.broadcast(&tensor, 0).unwrap();
                assert!(tensor.equal(&values), "{kind:?}");
                for gathered in group.all_gather(&values.tr()).unwrap() {
                    assert!(gathered.equal(&values.tr()), "{kind:?}");
                }
            }
            let columns = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
            let column = columns.select(1, group.rank() as i64);
            let _ = column.shallow_clone().fill_(1.0);
            group.all_reduce(&columns.tr(), ReduceOp::Sum).unwrap();
            group.all_reduce(&columns.select(1, 2), ReduceOp::Sum).unwrap();
            assert_eq!(columns, floats(&[1.0, 1.0, 0.0, 1.0, 1.0, 0.0]).view([2, 3]));
            group.broadcast(&Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)), 0).unwrap();
            group.all_reduce(&Tensor::from(1.5f64), ReduceOp::Max).unwrap();
            for kind in [Kind::Half, Kind::BFloat16] {
                let tensor = floats(&[1.0, 2.0]).to_kind(kind);
                group.all_reduce(&tensor, ReduceOp::Mean).unwrap();
                assert_eq!(tensor, floats(&[1.0, 2.0]).to_kind(kind));
            }
        });
    }

    #[test]
    fn parameters_can_be_changed_in_place() {
        ranks(2, &patient(), |group| {
            let weights: Vec<Tensor> =
                (0..3).map(|i| floats(&[(group.rank() * 10 + i) as f32]).set_requires_grad(true)).collect();
            group.broadcast_all(&weights, 1).unwrap();
            assert_eq!(Tensor::cat(&weights, 0), floats(&[10.0, 11.0, 12.0]));
            assert!(weights[0].requires_grad() && weights[0].is_leaf());
        });
    }

    #[test]
    fn work_goes_on_beside() {
        ranks(2, &patient(), |group| {
            let tensors: Vec<Tensor> = (0..8).map(|i| Tensor::from(i as f32)).collect();
            let works: Vec<Work> =
                tensors.iter().map(|tensor| group.all_reduce_async(tensor, ReduceOp::Sum).unwrap()).collect();
            let gathered = group.all_gather_async(&floats(&[group.rank() as f32])).unwrap();
            for mut work in works {
                assert!(work.wait_for(LONG).unwrap());
                assert!(work.is_completed());
                work.wait().unwrap();
            }
            assert_eq!(tensors[3], Tensor::from(6f32));
            assert_eq!(gathered.wait().unwrap()[1], floats(&[1.0]));
        });
    }

    #[test]
    fn waiting_for_work_can_be_given_up_and_taken_up_again() {
        ranks(2, &patient(), |group| {
            let tensor = floats(&[1.0]);
            if group.rank() == 0 {
                let mut work = group.all_reduce_async(&tensor, ReduceOp::Sum).unwrap();
                assert!(!work.wait_for(Duration::from_millis(20)).unwrap());
                assert!(!work.is_completed());
                group.store().unwrap().set("go", b"").unwrap();
                work.wait().unwrap();
            } else {
                group.store().unwrap().get("go").unwrap();
                group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
            }
            assert_eq!(tensor, floats(&[2.0]));
        });
    }

    #[test]
    fn bytes_of_any_length_travel() {
        ranks(3, &patient(), |group| {
            let own = vec![group.rank() as u8; group.rank() * 5];
            assert_eq!(group.all_gather_bytes(&own).unwrap(), [vec![], vec![1; 5], vec![2; 10]]);
            assert_eq!(group.all_gather_bytes(&[]).unwrap(), [vec![0u8; 0], vec![], vec![]]);
            let given = (group.rank() == 1).then_some(&b"configuration"[..]);
            assert_eq!(group.broadcast_bytes(given, 1).unwrap(), b"configuration");
            let nothing = (group.rank() == 1).then_some(&b""[..]);
            assert_eq!(group.broadcast_bytes(nothing, 1).unwrap(), b"");
        });
    }

    #[test]
    fn sub_groups_work_beside_the_whole() {
        ranks(3, &patient(), |group| {
            let rank = group.rank();
            let outer = group.subgroup(&[2, 0]).unwrap();
            assert_eq!(outer.is_some(), rank != 1);
            let again = group.subgroup(&[0, 2]).unwrap();
            for part in outer.iter().chain(&again) {
                assert_eq!((part.rank(), part.size(), part.name()), (rank / 2, 2, "default[0, 2]"));
                let tensor = floats(&[rank as f32]);
                part.all_reduce(&tensor, ReduceOp::Max).unwrap();
                assert_eq!(tensor, floats(&[2.0]));
            }
            group.barrier().unwrap();
            for wrong in [&[0, 3][..], &[1, 1], &[]] {
                let error = group.subgroup(wrong).unwrap_err().to_string();
                let expected =
                    format!("subgroup in group `default` of 3 ranks: {wrong:?} are not different ranks of this group");
                assert_eq!(error, expected);
            }
        });
    }

    #[test]
    fn a_group_of_one_needs_nobody() {
        ranks(1, &patient(), |group| {
            let tensor = floats(&[4.0]);
            group.all_reduce(&tensor, ReduceOp::Mean).unwrap();
            group.broadcast(&tensor, 0).unwrap();
            assert_eq!(group.all_gather(&tensor).unwrap(), [floats(&[4.0])]);
            assert_eq!(group.reduce_scatter(&[tensor.copy()], ReduceOp::Sum).unwrap(), tensor);
            group.barrier().unwrap();
        });
    }

    #[test]
    fn one_store_serves_many_groups() {
        let store = server(LONG);
        for round in 0..3 {
            thread::scope(|scope| {
                for rank in 0..2 {
                    let store = &store;
                    scope.spawn(move || {
                        let group = ProcessGroup::new(store, rank, 2, &patient()).unwrap();
                        let tensor = floats(&[round as f32]);
                        group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
                        assert_eq!(tensor, floats(&[2.0 * round as f32]));
                    });
                }
            });
        }
    }

    #[test]
    fn the_interface_can_be_chosen() {
        let options = GroupOptions { interface: Some("lo".into()), ..patient() };
        ranks(2, &options, |group| group.barrier().unwrap());
        let wrong = GroupOptions { interface: Some("none0".into()), ..impatient() };
        let error = ProcessGroup::new(&server(LONG), 0, 1, &wrong).unwrap_err().to_string();
        assert!(error.starts_with("rank 0 cannot join group `default` of 1 ranks: "), "{error}");
        assert!(error.contains("none0"), "{error}");
    }
}

mod errors {
    use super::*;

    #[test]
    fn arguments_that_do_not_fit_are_refused_before_anything_is_sent() {
        ranks(2, &patient(), |group| {
            let (tensor, integers) = (floats(&[1.0]), Tensor::from_slice(&[1i64]));
            let said = |result: Result<(), TorchError>| {
                let message = result.unwrap_err().to_string();
                message.split_once("ranks: ").unwrap().1.to_owned()
            };
            assert_eq!(said(group.broadcast(&tensor, 2)), "there is no rank 2; ranks count from 0");
            assert_eq!(
                said(group.all_reduce(&integers, ReduceOp::Mean)),
                "there is no mean of Int64; convert to Float, or use the sum"
            );
            assert_eq!(
                said(group.reduce_scatter(&[tensor.copy()], ReduceOp::Sum).map(drop)),
                "1 tensors were given, and every rank needs one"
            );
            assert_eq!(
                said(group.reduce_scatter(&[tensor.copy(), floats(&[1.0, 2.0])], ReduceOp::Sum).map(drop)),
                "the tensors differ: one is [1] of Float, another [2] of Float"
            );
            let wrong = if group.rank() == 0 { None } else { Some(&[][..]) };
            assert_eq!(said(group.scatter(&tensor, wrong, 0)), "rank 0 passes the tensors, and the other ranks none");
            assert!(said(group.send(&tensor, group.rank(), 0)).starts_with("the other side is this rank"));
            assert_eq!(said(group.broadcast(&Tensor::new(), 0)), "a tensor is undefined");
            // The group works as before.
            group.barrier().unwrap();
        });
        let error = ProcessGroup::new(&server(LONG), 2, 2, &patient()).unwrap_err().to_string();
        assert_eq!(error, "creating the group in group `default` of 2 ranks: there is no rank 2; ranks count from 0");
    }

    #[test]
    fn a_rank_that_never_arrives_is_named() {
        let store = server(LONG);
        let options = GroupOptions { timeout: SHORT, name: "world".into(), ..Default::default() };
        let came = thread::scope(|scope| {
            let ranks: Vec<_> = [0, 3]
                .map(|rank| {
                    scope.spawn({
                        let (store, options) = (&store, &options);
                        move || ProcessGroup::new(store, rank, 4, options)
                    })
                })
                .into();
            ranks.into_iter().map(|rank| rank.join().unwrap().unwrap_err().to_string()).collect::<Vec<_>>()
        });
        assert_eq!(
            came[1],
            "rank 3 waited 200ms for the making of group `world` (4 ranks), and ranks 1 and 2 did not join; are their \
             processes running, and do they make the same calls?"
        );
        assert!(came[0].starts_with("rank 0 waited"), "{}", came[0]);
    }

    #[test]
    fn a_rank_that_does_not_come_to_a_monitored_barrier_is_named_by_all() {
        let messages = ranks(3, &patient(), |group| {
            let waited = (group.rank() != 1).then(|| group.monitored_barrier(SHORT).unwrap_err().to_string());
            // The group goes on.
            group.barrier().unwrap();
            waited
        });
        let said = "waited 200ms for monitored_barrier of group `default` (3 ranks), and rank 1 did not join";
        assert!(messages[0].as_ref().unwrap().contains(said), "{messages:?}");
        assert!(messages[2].as_ref().unwrap().contains(said), "{messages:?}");
    }

    #[test]
    fn an_operation_that_another_rank_does_not_call_times_out() {
        let messages = ranks(2, &impatient(), |group| {
            if group.rank() == 0 {
                let error = group.all_reduce(&floats(&[1.0]), ReduceOp::Sum).unwrap_err();
                group.store().unwrap().set("done", b"").unwrap();
                Some(error.to_string())
            } else {
                group.store().unwrap().get("done").unwrap();
                None
            }
        });
        let message = messages[0].as_ref().unwrap();
        let begin =
            "rank 0: all_reduce in group `default` of 2 ranks did not complete within 1s; rank 1 does not respond: ";
        assert!(message.starts_with(begin), "{message}");
    }

    #[test]
    fn ranks_that_wait_for_different_things_say_so() {
        let messages = ranks(3, &impatient(), |group| {
            let result = match group.rank() {
                2 => group.broadcast(&floats(&[1.0]), 0),
                _ => group.all_reduce(&floats(&[1.0]), ReduceOp::Sum),
            };
            result.err().map(|error| error.to_string()).unwrap_or_default()
        });
        let said = "the ranks call different operations; rank 2 in broadcast";
        assert!(messages.iter().any(|message| message.contains(said)), "{messages:?}");
    }

    #[test]
    fn a_rank_that_ends_is_noticed_at_once() {
        let start = Instant::now();
        let messages = ranks(2, &patient(), |group| {
            group.barrier().unwrap();
            (group.rank() == 0).then(|| group.all_reduce(&floats(&[1.0]), ReduceOp::Sum).unwrap_err().to_string())
        });
        let message = messages[0].as_ref().unwrap();
        assert!(
            message.starts_with("rank 0: all_reduce in group `default` of 2 ranks lost its connection"),
            "{message}"
        );
        assert!(start.elapsed() < LONG / 2);
    }

    #[test]
    fn dropping_a_group_does_not_wait_for_its_work() {
        let start = Instant::now();
        ranks(2, &patient(), |group| {
            if group.rank() == 0 {
                let store = group.store().unwrap();
                for _ in 0..4 {
                    drop(group.all_reduce_async(&floats(&[1.0]), ReduceOp::Sum).unwrap());
                }
                drop(group);
                store.set("dropped", b"").unwrap();
            } else {
                group.store().unwrap().get("dropped").unwrap();
            }
        });
        assert!(start.elapsed() < LONG / 2);
    }

    #[test]
    fn nccl_needs_a_feature() {
        let options = GroupOptions { backend: Backend::Nccl, ..patient() };
        let error = ProcessGroup::new(&server(LONG), 0, 1, &options).unwrap_err().to_string();
        assert!(error.contains("NCCL"), "{error}");
    }
}

/// What `TORCH_DISTRIBUTED_DEBUG=DETAIL` finds out.
mod debug {
    use super::*;

    fn watchful() -> GroupOptions {
        GroupOptions { debug: Some(true), ..patient() }
    }

    #[test]
    fn what_is_right_works_as_without() {
        ranks(2, &watchful(), |group| {
            let tensor = floats(&[group.rank() as f32]);
            group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
            assert_eq!(tensor, floats(&[1.0]));
            assert_eq!(group.all_gather_bytes(b"ab").unwrap().len(), 2);
            group.barrier().unwrap();
        });
    }

    #[test]
    fn shapes_that_differ_are_shown() {
        let messages = ranks(2, &watchful(), |group| {
            let tensor = Tensor::zeros([2 + group.rank() as i64], (Kind::Float, Device::Cpu));
            group.all_reduce(&tensor, ReduceOp::Sum).unwrap_err().to_string()
        });
        for (rank, message) in messages.iter().enumerate() {
            let begin = format!(
                "rank {rank}: all_reduce in group `default` of 2 ranks differs from the operations of the other ranks: "
            );
            assert!(message.starts_with(&begin), "{message}");
            assert!(message.contains("TensorShape=[2]") && message.contains("TensorShape=[3]"), "{message}");
        }
    }

    #[test]
    fn operations_that_differ_are_shown() {
        let messages = ranks(2, &watchful(), |group| {
            let tensor = floats(&[1.0]);
            let result =
                if group.rank() == 0 { group.all_reduce(&tensor, ReduceOp::Sum) } else { group.broadcast(&tensor, 0) };
            result.unwrap_err().to_string()
        });
        assert!(messages[0].contains("ALLREDUCE") && messages[0].contains("BROADCAST"), "{}", messages[0]);
    }

    #[test]
    fn a_rank_that_skips_an_operation_is_named() {
        let messages = ranks(3, &GroupOptions { debug: Some(true), ..impatient() }, |group| {
            let skips = group.rank() == 2;
            (!skips)
                .then(|| {
                    let error = group.all_reduce(&floats(&[1.0]), ReduceOp::Sum).unwrap_err().to_string();
                    if group.rank() == 0 {
                        group.store().unwrap().set("done", b"").unwrap();
                    }
                    error
                })
                .or_else(|| {
                    group.store().unwrap().get("done").unwrap();
                    None
                })
        });
        let message = messages[0].as_ref().unwrap();
        let begin = "rank 0 waited 1s for all_reduce of group `default` (3 ranks), and rank 2 did not join";
        assert!(message.starts_with(begin), "{message}");
    }
}
