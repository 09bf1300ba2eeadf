// SPDX-License-Identifier: Apache-2.0

import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;

/** 200 threads that allocate, compute, wait and add up. */
public class Threads {
    static void put(String suffix, String text) throws Exception {
        Path fresh = Path.of("/load/java.new");
        Files.writeString(fresh, text);
        Files.move(fresh, Path.of("/load/java." + suffix), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }

    public static void main(String[] args) throws Exception {
        AtomicLong done = new AtomicLong();
        ConcurrentHashMap<Integer, Long> sums = new ConcurrentHashMap<>();
        CyclicBarrier barrier = new CyclicBarrier(200, () -> {
            try {
                long total = sums.values().stream().mapToLong(Long::longValue).sum();
                if (total != done.get()) {
                    put("error", total + " is not " + done.get() + "\n");
                }
                put("count", done.get() + "\n");
            } catch (Exception e) {
                e.printStackTrace();
            }
        });
        for (int i = 0; i < 200; i++) {
            final int me = i;
            new Thread(() -> {
                try {
                    Random random = new Random(me);
                    while (true) {
                        byte[] garbage = new byte[random.nextInt(20000) + 1];
                        Arrays.fill(garbage, (byte) me);
                        if (garbage[garbage.length / 2] != (byte) me) {
                            put("error", "memory of thread " + me + "\n");
                        }
                        sums.merge(me, 1L, Long::sum);
                        done.incrementAndGet();
                        if (random.nextInt(20) == 0) {
                            Thread.sleep(1);
                        }
                        barrier.await(120, TimeUnit.SECONDS);
                    }
                } catch (Exception e) {
                    try {
                        put("error", e + "\n");
                    } catch (Exception again) {
                        again.printStackTrace();
                    }
                }
            }).start();
        }
    }
}
