from swarm.semaphores import lend_thread_locks

lend_thread_locks()
